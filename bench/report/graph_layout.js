"use strict";
// Places the boxes of the picture. dagre's time grows faster than the graph, so the graph is cut
// where everything passes through one box; the pieces are laid out alone and put below each other.
const layOutGraph = (() => {
  const PIECE = 12; // boxes that are not worth a cut
  const GAP = { nodesep: 26, ranksep: 30, edgesep: 12, ranker: "network-simplex" };

  // Inputs right before their first reader, outputs right after their maker.
  function sequence(graph) {
    const { nodes, edges } = graph;
    const before = nodes.map(() => []), after = nodes.map(() => []);
    for (const [from, to] of edges) {
      if (nodes[from].kind === "input") before[to].push(from);
      if (nodes[to].kind === "output") after[from].push(to);
    }
    const order = [], seen = new Set();
    const push = (n) => { if (!seen.has(n)) { seen.add(n); order.push(n); } };
    nodes.forEach((node, n) => {
      if (node.kind !== "operator") return;
      before[n].forEach(push);
      push(n);
      after[n].forEach(push);
    });
    nodes.forEach((_, n) => push(n));
    return order;
  }

  // Places in the sequence that no edge passes by.
  function pieces(graph) {
    const order = sequence(graph);
    const place = [];
    order.forEach((n, p) => { place[n] = p; });
    const reach = order.map((_, p) => p);
    for (const [from, to] of graph.edges) {
      reach[place[from]] = Math.max(reach[place[from]], place[to]);
    }
    const result = [];
    let start = 0, farthest = 0;
    order.forEach((n, p) => {
      const isCut = farthest <= p && graph.nodes[n].kind === "operator";
      if (isCut && p - start >= PIECE && order.length - p > PIECE / 2) {
        result.push(order.slice(start, p + 1));
        start = p;
      }
      farthest = Math.max(farthest, reach[p]);
    });
    result.push(order.slice(start));
    return result;
  }

  function layOutPiece(graph, members, edges, isFirst, isLast) {
    const g = new dagre.graphlib.Graph({ multigraph: true });
    g.setGraph({ ...GAP });
    for (const n of members) g.setNode(String(n), { ...graph.nodes[n].size });
    const entered = new Set(), left = new Set();
    for (const e of edges) {
      const [from, to] = graph.edges[e];
      g.setEdge(String(from), String(to), {}, `e${e}`);
      entered.add(to);
      left.add(from);
    }
    // The box that two pieces share is above all of the one and below all of the other.
    const [top, bottom] = [members[0], members.at(-1)];
    for (const n of members) {
      if (!isFirst && n !== top && !entered.has(n)) g.setEdge(String(top), String(n), { weight: 0 }, "top");
      if (!isLast && n !== bottom && !left.has(n)) g.setEdge(String(n), String(bottom), { weight: 0 }, "bottom");
    }
    dagre.layout(g);
    return g;
  }

  // Centres of all boxes, bends of all edges, and the rectangle around them.
  return (graph) => {
    const at = [], bends = [];
    const piece = new Map();
    const parts = pieces(graph);
    const within = parts.map(() => []);
    parts.forEach((members, k) => members.forEach((n) => piece.set(n, [...(piece.get(n) ?? []), k])));
    graph.edges.forEach(([from, to], e) => {
      const k = piece.get(from).find((one) => piece.get(to).includes(one));
      within[k].push(e);
    });
    let x0 = 0, y0 = 0, x1 = 0, y1 = 0;
    parts.forEach((members, k) => {
      const g = layOutPiece(graph, members, within[k], k === 0, k === parts.length - 1);
      const joint = g.node(String(members[0]));
      const [dx, dy] = k ? [at[members[0]].x - joint.x, at[members[0]].y - joint.y] : [0, 0];
      for (const n of members) {
        const { x, y, width, height } = g.node(String(n));
        at[n] = { x: x + dx, y: y + dy };
        x0 = Math.min(x0, x + dx - width / 2);
        x1 = Math.max(x1, x + dx + width / 2);
        y0 = Math.min(y0, y + dy - height / 2);
        y1 = Math.max(y1, y + dy + height / 2);
      }
      for (const e of within[k]) {
        const [from, to] = graph.edges[e];
        bends[e] = g.edge(String(from), String(to), `e${e}`).points
          .map((p) => ({ x: p.x + dx, y: p.y + dy }));
        for (const { x } of bends[e]) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); }
      }
    });
    return { at, bends, box: { x: x0 - 12, y: y0 - 12, width: x1 - x0 + 24, height: y1 - y0 + 24 } };
  };
})();
