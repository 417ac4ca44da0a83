(() => {
  "use strict";
  // tables: a click on a column's name sorts by it, numbers as numbers
  const units = { k: 1e3, M: 1e6 };
  const valueOf = (cell) => {
    const text = cell.textContent.trim();
    const found = /^[<>]?\s*([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)\s*([kM]\b)?/.exec(text.replace(/−/g, "-"));
    return found ? Number(found[1].replace(/,/g, "")) * (units[found[2]] || 1) : null;
  };
  document.querySelectorAll("th button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const column = [...head.parentElement.children].indexOf(head);
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "descending";
      const numeric = head.classList.contains("n");
      const rows = [...body.rows].map((row, place) => {
        const cell = row.cells[column];
        return { row, place, key: numeric ? valueOf(cell) : cell.textContent.trim().toLowerCase() };
      });
      const sign = down || !numeric && head.getAttribute("aria-sort") !== "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        return (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) * sign || a.place - b.place;
      });
      head.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      body.append(...rows.map((one) => one.row));
    });
  });
  // figures: the value of a mark under the pointer, a finger or the keyboard
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (mark) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, at.x + at.width / 2 - own.width / 2), innerWidth - own.width - 4);
    const above = at.y - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 8}px`;
  };
  const markOf = (event) => event.target.closest && event.target.closest("[data-tip]");
  for (const kind of ["pointerover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => { const mark = markOf(event); mark ? show(mark) : hide(); });
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
