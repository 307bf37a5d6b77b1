"use strict";
// One function per plot. `data` is a run as describe_run left it, `shown` the indices of the
// layers that the filter leaves; quantities are layers × steps, null where nothing is known.

const FEW = 6; // layers that get colours, names and laws of their own

const plots = {
  median(rows) {
    if (!rows.length) return [];
    return rows[0].map((_, at) => {
      const values = rows.map((row) => row[at]).filter((v) => v !== null).sort((a, b) => a - b);
      const half = values.length >> 1;
      return !values.length ? null : values.length % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
    });
  },

  // lines where the schedule jumps, named by the learning rate that begins there
  stages(marks, along) {
    const named = marks.length > 1 && marks.length <= 8;
    return {
      shapes: marks.slice(1).map((mark) => ({
        type: "line", x0: mark[along], x1: mark[along], yref: "paper", y0: 0, y1: 1, layer: "below",
        line: { color: theme.colour("soft"), width: 1, dash: "dot" },
      })),
      annotations: (named ? marks : []).map((mark) => ({
        x: mark[along], yref: "paper", y: 1, xanchor: "left", yanchor: "bottom", showarrow: false, xshift: -2,
        text: (mark.lr === null ? "lr ?" : `lr ${mark.lr.toPrecision(3) * 1}`) + (mark.weight_decay === undefined ? "" : `, wd ${mark.weight_decay}`),
        font: { size: 11, color: theme.colour("soft") },
      })),
    };
  },

  // each layer thin, or few of them each in its own colour
  layers(data, shown, rows) {
    const few = shown.length <= FEW;
    return shown.map((layer, i) => ({
      x: data.steps, y: rows[layer], name: few ? theme.plain(data.layers[layer]) : "each layer", meta: "layer",
      text: theme.plain(data.layers[layer]), mode: "lines", legendgroup: few ? undefined : "layers",
      showlegend: few || i === 0, line: few ? theme.line(i) : { color: theme.colour("layer"), width: 0.9 },
      hovertemplate: "%{text}<br>step %{x}: %{y:.3g}<extra></extra>",
    }));
  },

  curve(x, y, name, line) {
    return { x, y, name, mode: "lines", line, hovertemplate: `${name}<br>step %{x}: %{y:.3g}<extra></extra>` };
  },

  angles(data, shown, scale) {
    const isRatio = scale === "ratio";
    const rows = isRatio ? data.ratio : data.angle;
    const traces = plots.layers(data, shown, rows);
    const several = shown.length > FEW;
    if (several) {
      traces.push(plots.curve(data.steps, plots.median(shown.map((i) => rows[i])), "median", { color: theme.colour("median"), width: 2.4 }));
    }
    const extra = plots.stages(data.marks, "step");
    if (isRatio) {
      if (data.a_priori.steps.length) {
        traces.push(plots.curve(data.a_priori.steps, data.a_priori.ratio, "predicted in advance", { color: theme.colour("law"), width: 2, dash: "dash" }));
      }
      extra.shapes.push({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: 0.95, y1: 1.05, line: { width: 0 }, fillcolor: theme.colour("band"), layer: "below" });
      extra.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: theme.colour("target"), width: 1, dash: "dot" } });
    } else {
      const law = { color: theme.colour("law"), width: several ? 2 : 1.2, dash: "dash" };
      if (several) {
        traces.push(plots.curve(data.steps, plots.median(shown.map((i) => data.law[i])), "trajectory law, median", law));
      } else {
        shown.forEach((i, k) => traces.push({
          ...plots.curve(data.steps, data.law[i], "trajectory law", { ...theme.line(k), width: 1.2, dash: "dash" }),
          showlegend: k === 0, legendgroup: "law",
        }));
      }
      [...new Set(shown.map((i) => data.targets.which[i]))].forEach((course, k) => traces.push({
        ...plots.curve(data.steps, data.targets.courses[course], "Δ*, in advance", { color: theme.colour("target"), width: 1.6, dash: "dot" }),
        showlegend: k === 0, legendgroup: "target",
      }));
    }
    const y = isRatio ? theme.axis("Δ/Δ*", { range: plots.ratioRange(shown.map((i) => rows[i])) }) : theme.axis("Δ [rad/step]", { type: "log", exponentformat: "power" });
    return { traces, layout: theme.layout({ xaxis: theme.axis("optimizer step"), yaxis: y, ...extra }) };
  },

  // from 0 to where nearly all lies, at least 1.5: the first steps may be far above
  ratioRange(rows) {
    const values = rows.flat().filter((v) => v !== null).sort((a, b) => a - b);
    const high = values.length ? values[Math.floor(0.98 * (values.length - 1))] : 1;
    return [0, Math.min(4, Math.max(1.5, 1.1 * high))];
  },

  heat(data, shown) {
    const z = shown.map((i) => data.ratio[i].map((v) => (v > 0 ? Math.log2(v) : null)));
    const name = (text) => theme.plain(text.length > 34 ? text.slice(0, 14) + "…" + text.slice(-19) : text);
    const every = Math.ceil(shown.length / (plots.heatHeight(shown.length) / 13));
    const labelled = shown.map((_, k) => k).filter((k) => k % every === 0);
    const trace = {
      type: "heatmap", x: data.steps, y: shown.map((_, k) => k), z, zmin: -2, zmax: 2, zmid: 0, hoverongaps: false,
      colorscale: [[0, theme.colour("below")], [0.5, theme.colour("equal")], [1, theme.colour("above")]],
      customdata: shown.map((i) => data.ratio[i]), text: shown.map((i) => data.steps.map(() => theme.plain(data.layers[i]))),
      hovertemplate: "%{text}<br>step %{x}: Δ/Δ* = %{customdata:.3g}<extra></extra>",
      colorbar: { tickvals: [-2, -1, 0, 1, 2], ticktext: ["≤ ¼", "½", "1", "2", "≥ 4"], thickness: 10, outlinewidth: 0, len: 1 },
    };
    const layout = theme.layout({
      xaxis: theme.axis("optimizer step", { showgrid: false }), margin: { l: 20, r: 4, t: 8, b: 36 },
      yaxis: theme.axis("", { autorange: "reversed", showgrid: false, ticks: "", tickvals: labelled, ticktext: labelled.map((k) => name(data.layers[shown[k]])), tickfont: { size: 10 } }),
      showlegend: false, ...plots.stages(data.marks, "step"), annotations: [],
    });
    layout.shapes.forEach((shape) => { shape.layer = "above"; });
    return { traces: [trace], layout };
  },

  // beside one plot, or beside all three
  heatHeight: (layers) => (layers <= 30 ? 270 : 890),

  norms(data, shown) {
    const traces = plots.layers(data, shown, data.norm_ratio);
    if (shown.length > FEW) {
      traces.push(plots.curve(data.steps, plots.median(shown.map((i) => data.norm_ratio[i])), "median", { color: theme.colour("median"), width: 2.4 }));
    }
    const extra = plots.stages(data.marks, "step");
    extra.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: theme.colour("target"), width: 1, dash: "dot" } });
    const y = theme.axis("r/r*", { type: "log", tickvals: [0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 5, 10, 20, 50, 100] });
    return { traces, layout: theme.layout({ xaxis: theme.axis("optimizer step"), yaxis: y, ...extra }) };
  },

  // losses on the left, everything that is better higher on the right
  history(data) {
    const isLoss = (metric) => /loss/i.test(metric);
    const traces = data.history.map((series, i) => ({
      x: series.iterations, y: series.values, name: theme.plain(series.metric), yaxis: isLoss(series.metric) ? "y" : "y2",
      mode: series.values.length > 40 ? "lines" : "lines+markers", line: theme.line(i), marker: { size: 6 },
      hovertemplate: "%{fullData.name}<br>iteration %{x}: %{y:.4g}<extra></extra>",
    }));
    const right = data.history.filter((series) => !isLoss(series.metric)).map((series) => series.metric);
    const unit = right.every((metric) => metric.startsWith("accuracy/")) ? "accuracy [%]" : right.every((metric) => metric.includes("mAP")) ? "mAP" : "metrics";
    return {
      traces,
      layout: theme.layout({
        xaxis: theme.axis("training iteration"), yaxis: theme.axis("loss"),
        yaxis2: theme.axis(unit, { overlaying: "y", side: "right", showgrid: false, tickmode: "auto", visible: right.length > 0 }),
        margin: { l: 54, r: 54, t: 38, b: 36 }, ...plots.stages(data.marks || [], "iteration"), annotations: [],
      }),
    };
  },

  compare(names, medians) {
    const traces = medians.map(({ run, steps, median }, i) => ({
      ...plots.curve(steps, median, theme.plain(names[run]), theme.line(i)), meta: "run",
    }));
    const shapes = [
      { type: "rect", xref: "paper", x0: 0, x1: 1, y0: 0.95, y1: 1.05, line: { width: 0 }, fillcolor: theme.colour("band"), layer: "below" },
      { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: theme.colour("target"), width: 1, dash: "dot" } },
    ];
    const legend = medians.length <= 2 * theme.several().length;
    const y = theme.axis("Δ/Δ*, median of layers", { range: plots.ratioRange(medians.map((m) => m.median)) });
    return { traces, layout: theme.layout({ xaxis: theme.axis("optimizer step"), yaxis: y, shapes, showlegend: legend }) };
  },
};
