"use strict";
// The plots of a result: all ratios to the original, and the launches.
(() => {
  const { data, color, plain, short, hover, narrow, layout, start } = onnxtrimPlots;
  // Shape and colour both tell the roles apart; only what was shown to differ is filled.
  const ROLES = {
    better: { name: "better", symbol: "circle", color: "frontier" },
    worse: { name: "worse", symbol: "square", color: "chosen" },
    open: { name: "no difference shown", symbol: "circle-open", color: "soft" },
    copy: { name: "original against itself (99%)", symbol: "diamond-open", color: "original" },
  };
  const LABEL = 42; // characters
  // In the whole width, not in that between labels and numbers.
  const LEGEND = { orientation: "h", xref: "container", yref: "container", x: 0.02, y: 1, yanchor: "top", bgcolor: "rgba(0,0,0,0)" };
  const WIDE = [1, 1.5, 2, 3, 4, 5, 6, 8], WIDER = [1, 2, 5];

  // --- forest -------------------------------------------------------------------------------

  const rows = data.forest.rows;
  const at = (index) => rows.length - 1 - index;
  const log = Math.log10;
  const rowHeight = () => (narrow() ? 48 : 30);
  const height = () => rows.length * rowHeight() + (narrow() ? 145 : 105);

  function ticks(low, high) {
    const found = [];
    if (high / low < 1.7) {
      const rough = (high - low) / 5, power = 10 ** Math.floor(log(rough));
      const step = power * [1, 2, 5, 10].find((size) => size * power >= rough);
      for (let n = Math.ceil(low / step); n * step <= high; n += 1) found.push(n * step);
    } else {
      const sizes = high / low < 15 ? WIDE : high / low < 300 ? WIDER : [1];
      for (let power = Math.floor(log(low)); power <= log(high); power += 1) {
        for (const size of sizes) found.push(size * 10 ** power);
      }
    }
    return found.filter((x) => x >= low && x <= high).map((x) => Number(x.toPrecision(6)));
  }

  function range() {
    const numbers = [1, ...rows.flatMap((row) => [...row.x, ...row.limits.map(([bound]) => bound)])];
    const [low, high] = [log(Math.min(...numbers)), log(Math.max(...numbers))];
    const spare = Math.max(0.06 * (high - low), 0.004);
    return [low - spare, high + spare];
  }

  function roleTrace(role) {
    const look = ROLES[role];
    const of = rows.map((row, index) => ({ ...row, y: at(index) })).filter((row) => row.role === role);
    return {
      type: "scatter", mode: "markers", name: look.name,
      x: of.map((row) => log(row.x[0])), y: of.map((row) => row.y),
      error_x: {
        type: "data", symmetric: false, thickness: 2, width: 4, color: color(look.color),
        array: of.map((row) => log(row.x[2] / row.x[0])), arrayminus: of.map((row) => log(row.x[0] / row.x[1])),
      },
      marker: { symbol: look.symbol, size: 10, color: color(look.color), line: { width: 2, color: color(look.color) } },
      hovertext: of.map((row) => hover(row.lines)), hovertemplate: "%{hovertext}<extra></extra>",
    };
  }

  function limitTrace() {
    const of = rows.flatMap((row, index) => row.limits.map(([bound, text]) => ({ bound, text, row, y: at(index) })));
    return {
      type: "scatter", mode: "markers", name: "limit", x: of.map((one) => log(one.bound)), y: of.map((one) => one.y),
      marker: { symbol: "line-ns-open", size: 20, color: color("budget"), line: { width: 3, color: color("budget") } },
      hovertext: of.map((one) => hover([`limit ${one.text}`, one.row.label])), hovertemplate: "%{hovertext}<extra></extra>",
    };
  }

  function forest() {
    const [low, high] = range();
    const marks = ticks(10 ** low, 10 ** high);
    const told = { showarrow: false, yref: "y", xref: "paper", font: { color: color("text") } };
    const annotations = rows.flatMap((row, index) => {
      const value = { ...told, y: at(index), text: plain(narrow() ? row.told.split(" [")[0] : row.told) };
      if (!narrow()) return [{ ...value, x: 1, xanchor: "left", xshift: 10 }];
      return [
        { ...told, y: at(index), yshift: 16, x: 0, xanchor: "left", text: short(row.label, LABEL), font: { color: color("text"), size: 11 } },
        { ...value, yshift: 16, x: 1, xanchor: "right", bgcolor: color("card"), font: { color: color("text"), size: 11 } },
      ];
    });
    const shown = Object.keys(ROLES).filter((role) => rows.some((row) => row.role === role));
    return [[...shown.map(roleTrace), limitTrace()], layout({
      height: height(), legend: LEGEND,
      margin: narrow() ? { l: 12, r: 12, t: 90, b: 48 } : { l: 56, r: 190, t: 50, b: 48 },
      xaxis: { range: [low, high], tickvals: marks.map(log), ticktext: marks.map(String), tickangle: 0, title: { text: "Candidate ÷ original" }, zeroline: true, zerolinewidth: 1.5, zerolinecolor: color("original") },
      yaxis: {
        range: [-0.7, rows.length - 0.2], tickvals: rows.map((_, index) => at(index)), ticks: "", fixedrange: true, zeroline: false,
        ticktext: rows.map((row) => short(row.label, LABEL)), showticklabels: !narrow(),
      },
      annotations,
    })];
  }

  // --- launches -----------------------------------------------------------------------------

  function launches() {
    const { pair, values, copies, interval, limits } = data.launches;
    const what = pair ? "candidate ÷ original" : "ms";
    const series = (list, name, symbol, of) => ({
      type: "scatter", mode: "markers", name, x: list.map((_, index) => index + 1), y: list,
      marker: { symbol, size: 10, color: color(of), line: { width: 2, color: color(of) } },
      hovertemplate: `launch %{x}: %{y:.4g} ${what}<extra></extra>`,
    });
    const traces = [series(values, pair ? "candidate" : "model", "circle", "frontier")];
    if (copies.length) traces.push(series(copies, "original against itself", "diamond-open", "original"));
    const across = { xref: "paper", x0: 0, x1: 1 };
    const level = (y, of, dash) => ({ type: "line", ...across, y0: y, y1: y, line: { color: color(of), width: 1.5, dash } });
    const shapes = [
      { type: "rect", ...across, y0: interval[1], y1: interval[2], layer: "below", line: { width: 0 }, fillcolor: color("frontier"), opacity: 0.2 },
      ...(pair ? [level(1, "original", "solid")] : []),
      ...limits.map(([bound]) => level(bound, "budget", "dash")),
    ];
    const annotations = limits.map(([bound, text]) => ({
      xref: "paper", x: 1, xanchor: "right", y: bound, yanchor: "bottom", showarrow: false,
      text: plain(`limit ${text}`), font: { color: color("budget") },
    }));
    return [traces, layout({
      xaxis: { title: { text: "Launch" }, range: [0.4, values.length + 0.6], dtick: values.length > 12 ? 4 : 1, tick0: 0, zeroline: false },
      yaxis: { title: { text: pair ? "Ratio of the medians" : "ms" }, zeroline: false },
      shapes, annotations,
    })];
  }

  const items = [];
  if (rows.length) {
    items.push({
      id: data.forest.id, title: "Ratios to the original", make: forest,
      paper: () => ({
        height: height() + 40, margin: { l: narrow() ? 20 : 240, r: 140, t: 90, b: 48, autoexpand: false },
        font: { size: 11 }, legend: LEGEND,
      }),
      file: () => ({ height: height() }),
    });
  }
  if (data.launches) items.push({ id: data.launches.id, title: "Launch by launch", make: launches });
  start(items);
})();
