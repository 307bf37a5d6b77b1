"use strict";
// Colours of the page, and what all plots have in common.

const theme = {
  // a colour of page.css, as it is now: light, dark or print
  colour: (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(),

  // told apart by most colour-blind readers (Okabe and Ito), with dashes beyond their number
  several: () => theme.colour("several").split(" "),
  dashes: ["solid", "dash", "dot", "dashdot"],

  line(i) {
    const colours = theme.several();
    const dash = theme.dashes[Math.floor(i / colours.length) % theme.dashes.length];
    return { color: colours[i % colours.length], dash, width: 1.8 };
  },

  // plotly reads tags and entities in text; names of runs and layers are only text
  plain: (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"),

  axis(title, more) {
    return {
      title: { text: title, standoff: 6 }, automargin: true, zeroline: false, gridcolor: theme.colour("line"),
      linecolor: theme.colour("line"), tickcolor: theme.colour("line"), ...more,
    };
  },

  layout(more) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: theme.colour("text"), size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 54, r: 12, t: 40, b: 36 }, hovermode: "closest", showlegend: true,
      legend: { orientation: "h", x: 0, yref: "container", y: 0.99, yanchor: "top", font: { size: 11 }, tracegroupgap: 0 },
      hoverlabel: { bgcolor: theme.colour("panel"), bordercolor: theme.colour("line"), font: { color: theme.colour("text") } },
      ...more,
    };
  },

  config: { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] },
};
