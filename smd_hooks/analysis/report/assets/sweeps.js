"use strict";
// Grids of learning rates: a panel per role, and how large the first updates were.
// A sweep is as describe_sweep left it; "value" is one of the option beside the learning rate.

const sweeps = {
  // colours of an ascending series, from one end of page.css's sequence to the other
  sequence(count) {
    const stops = theme.colour("sequence").split(" ").map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    return Array.from({ length: count }, (_, i) => {
      const along = count > 1 ? (i / (count - 1)) * (stops.length - 1) : 0;
      const stop = Math.min(Math.floor(along), stops.length - 2);
      const mixed = stops[stop].map((from, c) => Math.round(from + (along - stop) * (stops[stop + 1][c] - from)));
      return `rgb(${mixed.join(",")})`;
    });
  },

  short: (x) => (x >= 0.01 && x < 1e4 ? String(Number(x.toPrecision(2))) : Number(x.toPrecision(2)).toExponential()),

  rates: (sweep) => [...new Set(sweep.roles.flatMap((role) => role.lines.flatMap((line) => line.lr)))].sort((a, b) => a - b),

  // of a logarithmic axis: powers of ten, or 1, 2, 5 times them; plotly's own where these are too few
  ticks([low, high]) {
    const powers = Array.from({ length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => Math.floor(Math.log10(low)) + i);
    const every = Math.ceil(Math.log10(high / low) / 5);
    const steps = high / low > 50 ? [1] : [1, 2, 5];
    const values = powers.filter((power) => power % every === 0).flatMap((power) => steps.map((step) => Number(`${step}e${power}`))).filter((x) => x >= low && x <= high);
    return values.length > 1 ? { tickvals: values, ticktext: values.map(sweeps.short) } : { nticks: 4 };
  },

  // what a setting's runs came to, for a pointer that rests on it
  words(sweep, line, i) {
    const place = `${theme.plain(sweep.option)} ${line.value}, lr ${line.lr[i].toPrecision(3) * 1}`;
    const runs = line.ended[i] + line.lost[i];
    if (line.lost[i]) return `${place}: ${line.lost[i]} of ${runs} run${runs > 1 ? "s" : ""} lost`;
    const spread = runs > 1 ? `, ${line.low[i]} to ${line.high[i]}` : "";
    return `${place}: ${line.mean[i]}<br>${runs} run${runs > 1 ? "s" : ""}${spread}`;
  },

  panel(sweep, role) {
    const colours = sweeps.sequence(sweep.values.length);
    const rates = sweeps.rates(sweep);
    const [low, high] = sweep.range;
    const worst = sweep.lowest_is_best ? high : low;
    const nearest = Math.min(...rates.slice(1).map((lr, i) => Math.log10(lr / rates[i])), 1);
    const traces = [];
    role.lines.forEach((line) => {
      const rank = sweep.values.indexOf(line.value);
      const colour = colours[rank];
      const text = line.lr.map((_, i) => sweeps.words(sweep, line, i));
      const hover = { hovertemplate: "%{text}<extra></extra>", showlegend: false };
      traces.push({
        x: line.lr, y: line.mean, text, ...hover, meta: "line", mode: "lines+markers", line: { color: colour, width: 1.8 }, marker: { size: 6 },
        error_y: {
          type: "data", symmetric: false, thickness: 1, width: 2, color: colour,
          array: line.mean.map((y, i) => (y === null ? 0 : line.high[i] - y)), arrayminus: line.mean.map((y, i) => (y === null ? 0 : y - line.low[i])),
        },
      });
      const edge = (meta, symbol, chosen) => {
        const those = line.lr.map((_, i) => i).filter(chosen);
        if (!those.length) return;
        traces.push({
          x: those.map((i) => line.edge[i]), y: those.map(() => worst), text: those.map((i) => text[i]), ...hover,
          meta, mode: "markers", cliponaxis: false, marker: { symbol, size: 8, color: colour, line: { color: colour, width: 1 } },
        });
      };
      edge("lost", "x-thin-open", (i) => line.lost[i] > 0);
      edge("beyond", sweep.lowest_is_best ? "triangle-up" : "triangle-down", (i) => line.edge[i] !== null && !line.lost[i]);
    });
    const best = role.best.map(([value, lr]) => {
      const line = role.lines.find((one) => one.value === value);
      return { lr, y: line.mean[line.lr.indexOf(lr)] };
    });
    traces.push({
      x: best.map(({ lr }) => lr), y: best.map(({ y }) => y), meta: "best", mode: "markers", showlegend: false, hoverinfo: "skip",
      marker: { symbol: "circle-open", size: 13, color: theme.colour("text"), line: { width: 1.6 } },
    });
    const every = Math.ceil(rates.length / 4);
    const ticks = rates.filter((_, i) => i % every === 0);
    const ends = [rates[0], rates[rates.length - 1]].map((lr, i) => Math.log10(lr) + (i ? 0.5 : -0.5) * nearest);
    const layout = theme.layout({
      xaxis: theme.axis("learning rate", { type: "log", range: ends, tickvals: ticks, ticktext: ticks.map(sweeps.short), tickangle: 0 }),
      yaxis: theme.axis(theme.plain(sweep.title), { range: [low, high], nticks: 6 }),
      showlegend: false, margin: { l: 54, r: 10, t: 12, b: 38 },
    });
    return { traces, layout };
  },

  // one plot per measure, each with a band and a median of both runs
  start(sweep, role) {
    const traces = [];
    const axes = {};
    const annotations = [];
    const gap = 0.055;
    const width = (1 + gap) / sweep.measures.length;
    const percent = 100 * sweep.share;
    sweep.measures.forEach(([measure, title, limits], column) => {
      const number = column ? String(column + 1) : "";
      const domain = [column * width, Math.min((column + 1) * width - gap, 1)];
      const range = limits ? { range: limits.map(Math.log10), ...sweeps.ticks(limits) } : { visible: false };
      axes[`xaxis${number}`] = theme.axis("", { domain, anchor: `y${number}`, range: [0, percent], ticksuffix: " %", nticks: 5, automargin: false });
      axes[`yaxis${number}`] = theme.axis("", { anchor: `x${number}`, type: "log", automargin: false, ...range });
      annotations.push({ x: domain[0], xref: "paper", y: 1, yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, text: title, font: { size: 12 } });
      role.starts.forEach(({ end, courses, where, above }) => {
        const course = courses[measure];
        if (!course) return;
        const colour = sweeps.ofStart(above);
        const x = course.steps.map((step) => (percent * step) / end);
        const common = { x, xaxis: `x${number}`, yaxis: `y${number}`, showlegend: false, meta: measure };
        const edge = { ...common, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
        traces.push({ ...edge, y: course.low }, { ...edge, y: course.high, fill: "tonexty", fillcolor: sweeps.faint(colour) });
        const more = measure === "signal_to_noise" ? course.median.map((phi) => `, critical batch ${(1 / phi).toPrecision(3) * 1}`) : course.steps.map(() => "");
        traces.push({
          ...common, y: course.median, mode: course.steps.length > 30 ? "lines" : "lines+markers", line: { color: colour, width: 2 }, marker: { size: 5 },
          customdata: course.steps.map((step, k) => [theme.plain(where), step, more[k]]),
          hovertemplate: "%{customdata[0]}<br>step %{customdata[1]}: %{y:.3g}%{customdata[2]}<extra></extra>",
        });
      });
      if (!role.starts.some(({ courses }) => courses[measure])) {
        annotations.push({ x: (domain[0] + domain[1]) / 2, xref: "paper", y: 0.5, yref: "paper", showarrow: false, text: "not measured", font: { color: theme.colour("soft") } });
      }
    });
    return { traces, layout: theme.layout({ ...axes, annotations, showlegend: false, margin: { l: 48, r: 18, t: 24, b: 26 } }) };
  },

  ofStart: (above) => theme.several()[above ? 0 : 1],
  faint: (hex) => `${hex}30`,

  key(entries) {
    const key = tables.element("p", "", { class: "key" });
    entries.forEach(([colour, text]) => {
      const entry = tables.element("span", "");
      if (colour) {
        const swatch = document.createElement("i");
        swatch.style.background = colour;
        entry.append(swatch);
      }
      entry.append(text);
      key.append(entry);
    });
    return key;
  },

  figure(caption, plot) {
    const figure = document.createElement("figure");
    const heading = document.createElement("figcaption");
    heading.append(...caption);
    figure.append(heading, ...(plot ? [plot] : []));
    return figure;
  },

  // all of it anew: colours and widths may have changed
  show(parent, all) {
    parent.querySelectorAll(".plot").forEach((plot) => Plotly.purge(plot));
    parent.replaceChildren();
    const drawn = [];
    const plot = (made) => {
      const place = tables.element("div", "", { class: "plot" });
      drawn.push([place, made]);
      return place;
    };
    all.forEach((sweep) => {
      const colours = sweeps.sequence(sweep.values.length);
      const edge = sweep.lowest_is_best ? "top" : "bottom";
      const panels = tables.element("div", "", { class: "panels" });
      panels.append(...sweep.roles.map((role) => sweeps.figure(
        [tables.element("span", role.name, { class: "title" }), ...role.words.map((words) => tables.element("small", words))], plot(sweeps.panel(sweep, role)),
      )));
      const starts = tables.element("div", "", { class: "starts" });
      starts.append(...sweep.roles.filter((role) => role.starts.length).map((role) => {
        const measured = role.starts.some(({ courses }) => Object.keys(courses).length);
        const entries = role.starts.map(({ where, above, run, message }) => [measured ? sweeps.ofStart(above) : "", `${where} (${run}): ${message}`]);
        const caption = [tables.element("span", role.name, { class: "title" }), sweeps.key(entries)];
        return sweeps.figure(caption, measured ? plot(sweeps.start(sweep, role)) : null);
      }));
      const lowest = `${sweep.option} ${sweep.values[0]}`;
      parent.append(
        tables.element("h3", `${sweep.experiment}: ${sweep.title} against learning rate`),
        tables.element("p", sweep.scale, { class: "note" }),
        tables.element("p", [
          "Points are means of seeds at the end of training; bars go from the lowest to the highest run.",
          `○: the best at ${lowest}, and the best above it. ✕ at the ${edge}: a run diverged or ended without a number, and the setting has no mean.`,
          `${sweep.lowest_is_best ? "▲" : "▼"}: a mean beyond the axis, which all panels share.`,
          sweep.left_out ? `Left out: ${sweep.left_out} runs that failed otherwise or have not ended.` : "",
        ].join(" "), { class: "note" }),
        sweeps.key(sweep.values.map((value, i) => [colours[i], `${sweep.option} ${value}`])),
        panels,
        tables.element("h3", `${sweep.experiment}: the first ${100 * sweep.share} % of training`),
        tables.element("p", `Medians over weight matrices, and the band of the 10th to the 90th percentile, of the first seed of the two best settings: at ${lowest}, and above it. Horizontal: share of the training's steps.`, { class: "note" }),
        starts,
      );
    });
    drawn.forEach(([place, { traces, layout }]) => Plotly.newPlot(place, traces, layout, theme.config));
  },
};
