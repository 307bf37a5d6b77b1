"use strict";
// What the reader chose, and what follows from it. A run's data are parsed when it is chosen.

(() => {
  const at = (id) => document.getElementById(id);
  const parse = (id) => JSON.parse(at(id).textContent);
  const runRows = [...at("runs").tBodies[0].rows].sort((a, b) => a.dataset.run - b.dataset.run);
  const names = runRows.map((row) => row.querySelector("button.run").textContent);
  const medians = parse("medians");
  const grids = [...document.querySelectorAll("script[id^=sweep-]")].map((script) => JSON.parse(script.textContent));
  const tabs = ["run", "compare", ...(grids.length ? ["sweeps"] : [])];
  let data = null;

  function draw(id, { traces, layout }) {
    return Plotly.react(at(id), traces, layout, theme.config);
  }

  function shownLayers() {
    const wanted = at("filter").value.trim().toLowerCase();
    const matches = (name) => name.toLowerCase().includes(wanted);
    return {
      layers: data.message ? [] : data.layers.map((_, i) => i).filter((i) => matches(data.layers[i])),
      diagnoses: data.diagnosis.filter((row) => matches(row[0])),
    };
  }

  function showAlone(layer) {
    at("filter").value = at("filter").value === layer ? "" : layer;
    drawLayers();
  }

  function drawLayers() {
    const { layers, diagnoses } = shownLayers();
    const scale = document.querySelector("input[name=scale]:checked").value;
    at("count").textContent = data.message ? "" : `${layers.length} of ${data.layers.length} layers`;
    if (!data.message) {
      const height = plots.heatHeight(layers.length);
      at("heat-figure").classList.toggle("tall", height > plots.heatHeight(1));
      at("heat").style.height = `${height}px`;
      draw("angles", plots.angles(data, layers, scale));
      draw("heat", plots.heat(data, layers));
      draw("norms", plots.norms(data, layers));
      const heat = at("heat");
      heat.removeAllListeners("plotly_click");
      heat.on("plotly_click", (event) => showAlone(data.layers[layers[event.points[0].y]]));
    }
    at("causes").textContent = tables.causes(diagnoses);
    tables.diagnosis(at("diagnosis"), diagnoses, showAlone);
  }

  function drawRun() {
    ["angles", "heat", "norms"].forEach((id) => { at(`${id}-figure`).hidden = data.message !== ""; });
    at("history-figure").hidden = !data.history.length;
    if (data.history.length) draw("history", plots.history(data));
    drawLayers();
  }

  function choose(run) {
    data = parse(`run-${run}`);
    runRows.forEach((row, i) => {
      row.classList.toggle("chosen", i === run);
      row.querySelector("button.run").setAttribute("aria-pressed", i === run);
    });
    at("name").textContent = data.name;
    at("status").textContent = data.status;
    at("status").className = `status ${data.status}`;
    at("verdict").textContent = data.verdict;
    at("facts").replaceChildren(...data.facts.map(([name, fact]) => {
      const shown = tables.element("span", (name === "si_params" ? "scale-invariant" : name.replace(/_/g, " ")) + " ");
      shown.append(tables.element("b", fact));
      return shown;
    }));
    at("message").hidden = !data.message;
    at("message").textContent = data.message;
    at("filter").value = "";
    at("filter-label").hidden = !data.diagnosis.length;
    at("stages-part").hidden = !data.stages.length;
    at("diagnosis-part").hidden = !data.diagnosis.length;
    tables.stages(at("stages"), data.stages);
    drawRun();
  }

  function drawCompared() {
    const chosen = runRows.map((row, run) => ({ run, ticked: row.querySelector("input")?.checked }))
      .filter(({ ticked }) => ticked).map(({ run }) => ({ run, ...medians[run] }));
    at("tab-compare").textContent = `Compare ${chosen.length} run${chosen.length === 1 ? "" : "s"}`;
    at("compare-message").hidden = chosen.length > 0;
    at("compare-message").textContent = medians.some((m) => m) ? "Tick runs in the table." : "No run has anything to compare.";
    at("compare").parentElement.hidden = !chosen.length;
    if (chosen.length && !at("view-compare").hidden) draw("compare", plots.compare(names, chosen));
  }

  function view(tab) {
    tabs.forEach((name) => {
      at(`view-${name}`).hidden = name !== tab;
      at(`tab-${name}`).setAttribute("aria-selected", name === tab);
      at(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    });
    drawAll();
  }

  function drawAll() {
    if (data && !at("view-run").hidden) drawRun();
    drawCompared();
    if (grids.length && !at("view-sweeps").hidden) sweeps.show(at("view-sweeps"), grids);
  }

  function tickAll(ticked) {
    runRows.forEach((row) => row.querySelector("input") && (row.querySelector("input").checked = ticked));
    drawCompared();
  }

  let waiting = 0;
  at("filter").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawLayers, 120);
  });
  document.querySelectorAll("input[name=scale]").forEach((radio) => radio.addEventListener("change", drawLayers));
  at("all-columns")?.addEventListener("change", (event) => at("runs").classList.toggle("all", event.target.checked));
  at("compare-all")?.addEventListener("click", () => tickAll(true));
  at("compare-none")?.addEventListener("click", () => tickAll(false));
  runRows.forEach((row, run) => {
    row.querySelector("button.run").addEventListener("click", () => { choose(run); view("run"); });
    row.querySelector("input")?.addEventListener("change", drawCompared);
  });
  tabs.forEach((name, i) => {
    at(`tab-${name}`).addEventListener("click", () => view(name));
    at(`tab-${name}`).addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const next = tabs[(i + (event.key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length];
      view(next);
      at(`tab-${next}`).focus();
    });
  });
  ["(prefers-color-scheme: dark)", "print"].forEach((media) => matchMedia(media).addEventListener("change", drawAll));
  tables.makeSortable(at("runs"));
  const first = medians.findIndex((median) => median);
  if (runRows.length) choose(Math.max(first, 0));
  drawCompared();
  if (grids.length) view("sweeps");
})();
