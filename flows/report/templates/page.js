"use strict";
// Without this script everything is there; with it tables sort and filter, and commands are copied.
function valueOf(row, column) {
  const cell = row.cells[column];
  const data = cell.querySelector("data");
  const raw = data ? data.value : cell.textContent.trim();
  return raw !== "" && !isNaN(raw) ? Number(raw) : raw === "null" || raw === "" ? -Infinity : raw;
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}
function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, row => [valueOf(row, column), row]);
  rows.sort((a, b) => sign * compare(a[0], b[0]));
  body.replaceChildren(...rows.map(pair => pair[1]));
}
for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, column));
  });
  if (table.tBodies[0].rows.length > 8) {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "filter these lines";
    input.setAttribute("aria-label", "filter these lines");
    const texts = Array.from(table.tBodies[0].rows, row => [row, row.textContent.toLowerCase()]);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const [row, text] of texts) row.hidden = !text.includes(wanted);
    });
    table.parentNode.before(input);
  }
}
for (const command of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.textContent = "Copy";
  button.className = "copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command.querySelector("code"));
    }
  });
  command.append(button);
}
