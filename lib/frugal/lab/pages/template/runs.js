// Filter, sort and compare runs. Without scripts the page is a complete list all the same.
const byId = (id) => document.getElementById(id);
const runs = JSON.parse(byId("runs").textContent);
const main = document.querySelector("main");
const articles = [...document.querySelectorAll("article.run")];
const picks = [...document.querySelectorAll(".pick")];
byId("tools").hidden = articles.length === 0;
picks.forEach((pick) => { pick.hidden = false; });

byId("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (element) => words.every((word) => element.textContent.toLowerCase().includes(word));
  articles.forEach((article) => {
    article.querySelectorAll("tbody tr").forEach((row) => { row.hidden = !holds(row) && !holds(article.querySelector("h2")); });
    article.hidden = !holds(article);
  });
  const left = articles.filter((article) => !article.hidden).length;
  byId("count").textContent = words.length ? `${left} of ${articles.length} notebooks` : "";
});

// While runs go on the page is written again and again: load it again, unless somebody is busy with it.
const live = byId("live");
if (live) {
  const silent = Date.now() / 1000 - live.dataset.written > 300;
  if (silent) byId("silence").textContent = "Nothing was heard of these runs for some minutes: they may have been killed.";
  const busy = () => byId("filter").value || picks.some((each) => each.checked) || document.querySelector("details[open]");
  setInterval(() => { if (!busy() && !document.hidden) location.reload(); }, silent ? 60000 : 5000);
}

// Enter in the filter would send the form, and so load the page again.
byId("tools").addEventListener("submit", (event) => { event.preventDefault(); });

byId("sort").addEventListener("change", (event) => {
  const key = event.target.value;
  const sorted = [...articles];
  if (key !== "started") sorted.sort((a, b) => a.dataset[key].localeCompare(b.dataset[key]));
  sorted.forEach((article) => main.insertBefore(article, byId("unreadable-runs")));
});

// What a cell says as a number, a duration in seconds; NaN for words.
function seconds(text) {
  const duration = text.match(/^(?:([\d.]+) h)? ?(?:([\d.]+) min)? ?(?:([\d.]+) s)?$/);
  if (text && duration) return 3600 * (duration[1] ?? 0) + 60 * (duration[2] ?? 0) + Number(duration[3] ?? 0);
  return text.trim() ? Number(text) : NaN;
}

// A click on a column's name sorts its table; another one turns the order round.
document.querySelectorAll(".earlier th[scope=col]").forEach((head) => {
  const button = document.createElement("button");
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const down = head.ariaSort === "ascending";
    head.parentNode.querySelectorAll("th").forEach((other) => { other.removeAttribute("aria-sort"); });
    head.ariaSort = down ? "descending" : "ascending";
    const body = head.closest("table").tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[head.cellIndex].textContent;
      return { row, text, number: seconds(text) };
    });
    // Numbers by their size, before words; rows without a value stand last in both orders.
    keyed.sort((a, b) => {
      if (!a.text || !b.text) return !a.text - !b.text;
      if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
      const order = Number.isNaN(a.number) ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
      return down ? -order : order;
    });
    body.append(...keyed.map(({ row }) => row));
  });
});

picks.forEach((pick) => pick.addEventListener("change", () => {
  const chosen = picks.filter((each) => each.checked);
  picks.forEach((each) => { each.disabled = chosen.length === 2 && !each.checked; });
  const place = byId("comparison");
  place.hidden = chosen.length < 2;
  place.replaceChildren(...(place.hidden ? [] : comparison(chosen.map((each) => [runs[each.value], each]))));
}));

function element(name, content, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...[content].flat());
  return made;
}

// What differs in the parameters, then all results, then the figures, of two runs side by side.
function comparison(pair) {
  const rows = ["parameters", "results"].flatMap((kind) => {
    const names = [...new Set(pair.flatMap(([run]) => Object.keys(run[kind])))];
    const differ = names.filter((name) => kind === "results" || pair[0][0][kind][name] !== pair[1][0][kind][name]);
    return differ.map((name) => element("tr", [
      element("th", name, { scope: "row" }),
      ...pair.map(([run]) => element("td", run[kind][name] ?? "")),
    ]));
  });
  const images = pair.map(([, pick]) => pick.closest("tr, article").querySelector("img"));
  const figures = element("tr", [
    element("th", "first figure", { scope: "row" }),
    ...images.map((image) => element("td", image ? image.cloneNode() : "none")),
  ]);
  const heads = pair.map(([run]) => element("th", element("a", `${run.title}, ${run.when}`, { href: run.link }), { scope: "col" }));
  return [
    element("h2", "Two runs side by side"),
    element("table", [
      element("thead", element("tr", [element("td", ""), ...heads])),
      element("tbody", [...rows, figures]),
    ]),
  ];
}
