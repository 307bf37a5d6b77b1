"use strict";
// Tables: sorting of the runs, stages and diagnosis of one run. All text goes in as text.

const tables = {
  number: (value, digits = 3) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(digits)))),
  two: (value) => (value === null ? "" : Math.abs(value) >= 0.1 || value === 0 ? value.toFixed(2) : String(Number(value.toPrecision(2)))),
  percent: (value) => Math.round(100 * value) + " %",

  element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  },

  // headings: [text, is a number]; rows: cells of text, or elements for a row's heading
  fill(table, headings, rows) {
    const head = document.createElement("tr");
    headings.forEach(([text, numeric]) => head.append(tables.element("th", text, { scope: "col", class: numeric ? "number" : "" })));
    const body = rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, i) => {
        const made = tables.element(i ? "td" : "th", typeof cell === "string" ? cell : "", { class: headings[i][1] ? "number" : i === cells.length - 1 ? "words" : "" });
        if (!i) made.setAttribute("scope", "row");
        if (typeof cell !== "string") made.append(cell);
        row.append(made);
      });
      return row;
    });
    table.replaceChildren(document.createElement("thead"), document.createElement("tbody"));
    table.tHead.append(head);
    table.tBodies[0].append(...body);
  },

  stages(table, stages) {
    const headings = ["stage", "steps", "lr", "weight\ndecay", "Δ*\n[rad/step]", "τ\n[steps]", "length\n[τ]", "Δ/Δ*\nat start", "Δ/Δ*\nat end", "within 5 %\nat end", "steps to\nequilibrium", "predicted\nsteps", "measured /\npredicted"];
    const { number, two, percent } = tables;
    const rows = stages.map((s) => [
      String(s.stage), `${s.first_step}–${s.last_step}`, number(s.lr), number(s.weight_decay), number(s.equilibrium_angle),
      number(s.relaxation_steps), number(s.length), two(s.ratio_start), two(s.ratio_end), percent(s.in_equilibrium),
      s.reached ? `${number(s.steps_to_equilibrium)} (${s.reached} of ${s.layers} layers)` : "not reached",
      number(s.predicted_steps), two(s.time_ratio),
    ]);
    tables.fill(table, headings.map((text, i) => [text, i > 0]), rows);
  },

  diagnosis(table, rows, choose) {
    const headings = [["layer", false], ["Δ/Δ*", true], ["trajectory error", true], ["r/r*", true], ["cause", false], ["its number", true], ["in words", false]];
    tables.fill(table, headings, rows.map(([layer, ratio, error, norm, cause, value, detail]) => {
      const name = tables.element("button", layer, { type: "button", class: "layer", title: "show this layer alone" });
      name.addEventListener("click", () => choose(layer));
      return [name, tables.two(ratio), tables.two(error), tables.two(norm), cause, tables.number(value), detail];
    }));
  },

  // "15 not relaxed yet · 11 in equilibrium", most frequent first
  causes(rows) {
    const counts = new Map();
    rows.forEach((row) => counts.set(row[4], (counts.get(row[4]) || 0) + 1));
    return [...counts].sort((a, b) => b[1] - a[1]).map(([cause, count]) => `${count} ${cause}`).join(" · ");
  },

  // numbers by value, text by name; what is not known stays last either way
  makeSortable(table) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: row.cells[column].dataset.key || "" }));
      const numeric = rows.every(({ key }) => key === "" || !Number.isNaN(Number(key)));
      rows.sort((a, b) => {
        if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
        const order = numeric ? a.key - b.key : a.key.localeCompare(b.key);
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map(({ row }) => row));
    }));
  },
};
