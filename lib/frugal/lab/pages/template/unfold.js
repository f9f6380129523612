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
