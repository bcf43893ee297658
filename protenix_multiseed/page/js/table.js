/* A table that can be sorted, and whose rows can be chosen with mouse and keyboard.

   columns: {title, value: (row) => number or text, text: (row) => shown text, kind: "text" for left-aligned, make: (row) => a node}
   options: label; sort: {column, down}; onSort(sort); choose(place); */
function makeTable(place, columns, rows, { label, sort = null, onSort = null, choose = null } = {}) {
  const table = element("table", null, { "aria-label": label });
  const head = element("tr", null);
  const body = element("tbody", null);
  table.append(element("thead", null), body);
  table.tHead.append(head);
  columns.forEach((column, index) => {
    const cell = element("th", onSort ? null : column.title, { scope: "col" });
    if (column.kind === "text") cell.className = "text";
    if (onSort) {
      const button = element("button", column.title, { type: "button" });
      button.addEventListener("click", () => {
        const first = column.kind === "text" || column.up ? false : true; // numbers: largest first
        sort = { column: index, down: sort.column === index ? !sort.down : first };
        arrange();
        onSort(sort);
      });
      cell.append(button);
    }
    head.append(cell);
  });
  const lines = rows.map((row, at) => {
    const line = element("tr", null);
    columns.forEach((column, index) => {
      const cell = element(index ? "td" : "th", null, index ? {} : { scope: "row" });
      cell.append(column.make ? column.make(row) : column.text(row));
      if (column.kind === "text") cell.className = "text";
      line.append(cell);
    });
    if (choose) {
      line.tabIndex = -1;
      line.setAttribute("aria-selected", "false");
      line.addEventListener("click", () => choose(at));
      line.addEventListener("keydown", (event) => {
        const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
        if (event.key === "Enter" || event.key === " ") choose(at);
        else if (step) line[step]?.focus();
        else return;
        event.preventDefault();
        if (step) line[step]?.click();
      });
    }
    return line;
  });

  function arrange() {
    if (sort) {
      const { value } = columns[sort.column];
      const order = rows.map((row, at) => [value(row) ?? -Infinity, at]);
      order.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : 0) * (sort.down ? -1 : 1) || one - other);
      body.replaceChildren(...order.map(([, at]) => lines[at]));
      [...head.cells].forEach((cell, index) => cell.setAttribute("aria-sort",
        index !== sort.column ? "none" : sort.down ? "descending" : "ascending"));
    } else {
      body.replaceChildren(...lines);
    }
  }
  arrange();
  if (choose) table.setAttribute("role", "grid");
  place.replaceChildren(table);
  return {
    lines,
    csv: () => csv([columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ value }) => value(row)))]),
    select(at) {
      lines.forEach((line, index) => { line.setAttribute("aria-selected", String(index === at)); line.tabIndex = index === at ? 0 : -1; });
    },
  };
}
