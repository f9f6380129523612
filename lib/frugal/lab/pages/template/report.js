const unfold = document.getElementById("unfold");
const blocks = [...document.querySelectorAll("details.code")];
unfold.hidden = blocks.length === 0;
unfold.addEventListener("click", () => {
  const open = blocks.some((block) => !block.open);
  blocks.forEach((block) => { block.open = open; });
  unfold.textContent = open ? "Hide all code" : "Show all code";
});
// A contents list that takes the whole first screen of a phone helps nobody.
if (matchMedia("(max-width: 68rem)").matches) document.querySelector(".contents details").open = false;

// Each table can be copied or saved as CSV, with all digits where the cell shows fewer.
function csv(table) {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const cells = (row) => [...row.cells].map((cell) => quoted(cell.dataset.value ?? cell.textContent.trim()));
  return [...table.rows].map((row) => cells(row).join(",")).join("\n") + "\n";
}
function copy(text) {
  const field = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(field);
  field.select();
  document.execCommand("copy"); // the newer way is closed to pages that are opened as files
  field.remove();
}
function save(text, name) {
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(new Blob([text], { type: "text/csv" })),
    download: `${name.replace(/[^\p{L}\p{N}]+/gu, "_")}.csv`,
  });
  link.click();
}
document.querySelectorAll("main table").forEach((table) => {
  const name = table.caption?.textContent ?? "Table";
  const button = (label, action) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    made.setAttribute("aria-label", `${label}: ${name}`);
    made.addEventListener("click", action);
    return made;
  };
  const copying = button("Copy", () => {
    copy(csv(table));
    copying.textContent = "Copied";
  });
  const tools = Object.assign(document.createElement("p"), { className: "table-tools" });
  tools.append(copying, " ", button("Save as CSV", () => save(csv(table), name)));
  (table.closest(".scroll") ?? table).after(tools);
});
