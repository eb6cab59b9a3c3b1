"use strict";
// The picture of the model: graph_layout.js places its boxes, graph_draw.js draws them, and
// report.css colours them; here is what it does when it is looked at.
(() => {
  const root = document.documentElement;
  const graph = JSON.parse(document.getElementById("data").textContent).graph;
  const host = document.getElementById("graph");
  const picked = document.getElementById("graph-picked");
  const { svg, html, linesOf, labelOf, measure, drawNode, drawEdge, drawSwatch, drawTable, slices, ofRole, out, VERBS } = graphDrawing;
  for (const node of graph.nodes) node.lines = linesOf(node, graph.groups);
  const ZOOMS = { least: 0.02, most: 3, step: 1.3 };
  const LISTED = 8;
  const narrow = () => root.clientWidth < 640;
  const view = { k: 1, x: 0, y: 0 };
  let layout, picture, stage, boxes, lines, tip;
  let chosen = null; // the group that is highlighted

  function build() {
    measure(graph.nodes);
    layout = layOutGraph(graph);
    picture = svg("svg", {
      role: "group", "aria-labelledby": "graph-title", "aria-describedby": "graph-lead graph-help",
    });
    stage = svg("g", { id: "graph-stage" });
    lines = graph.edges.map((edge, e) => drawEdge(edge, layout.bends[e]));
    boxes = graph.nodes.map((node, n) => drawNode(node, n, layout.at[n], graph.looks));
    stage.append(...lines, ...boxes);
    picture.append(stage);
    tip = html("div", "tip");
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true"); // the boxes' labels say the same
    host.replaceChildren(picture, tip);
    host.removeAttribute("aria-busy");
    host.style.maxHeight = `${Math.ceil(layout.box.height) + 2}px`;
    listen();
    fitWidth();
  }

  // --- where one looks ----------------------------------------------------------------------

  function place() {
    stage.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.k})`);
    tip.hidden = true;
  }

  function zoom(factor, x = host.clientWidth / 2, y = host.clientHeight / 2) {
    const k = Math.min(ZOOMS.most, Math.max(ZOOMS.least, view.k * factor));
    view.x = x - ((x - view.x) * k) / view.k;
    view.y = y - ((y - view.y) * k) / view.k;
    view.k = k;
    place();
  }

  function lookAt(k, x, y) {
    Object.assign(view, { k, x: host.clientWidth / 2 - k * x, y });
    place();
  }

  const middle = () => layout.box.x + layout.box.width / 2;
  // Readable first: a wide graph is not squeezed until its words are gone.
  function fitWidth() {
    const k = Math.min(1, Math.max(narrow() ? 0.55 : 0.7, host.clientWidth / layout.box.width));
    const isCut = k * layout.box.width > host.clientWidth;
    lookAt(k, isCut ? layout.at[0].x : middle(), -k * layout.box.y);
    const spare = host.clientHeight - k * layout.box.height;
    if (spare > 0) { view.y += spare / 2; place(); }
  }

  function fitAll() {
    const k = Math.min(1, host.clientWidth / layout.box.width, host.clientHeight / layout.box.height);
    lookAt(k, middle(), (host.clientHeight - k * layout.box.height) / 2 - k * layout.box.y);
  }

  function reveal(n) {
    const { x, y } = layout.at[n];
    const [left, top] = [view.x + view.k * x, view.y + view.k * y];
    const [w, h] = [graph.nodes[n].size.width * view.k / 2, graph.nodes[n].size.height * view.k / 2];
    const inside = left > w && left < host.clientWidth - w && top > h && top < host.clientHeight - h;
    if (inside) return;
    view.x = host.clientWidth / 2 - view.k * x;
    view.y = host.clientHeight / 2 - view.k * y;
    place();
  }

  function tell(n) {
    const node = graph.nodes[n];
    const [first, ...rest] = node.lines;
    tip.replaceChildren(html("b", "", first), ...rest.map((line) => html("div", "", line)));
    tip.hidden = false;
    const box = boxes[n].getBoundingClientRect(), frame = host.getBoundingClientRect();
    const x = box.left - frame.left + box.width / 2 - tip.offsetWidth / 2;
    const below = box.bottom - frame.top + 8;
    const above = box.top - frame.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(4, Math.min(x, host.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, below + tip.offsetHeight > host.clientHeight && above > 0 ? above : below)}px`;
  }

  // --- highlighting -------------------------------------------------------------------------

  function pick(group, move = true) {
    chosen = group === chosen ? null : group;
    picture.classList.toggle("picked", chosen !== null);
    const users = { producer: [], carrier: [], consumer: [] };
    graph.nodes.forEach((node, n) => {
      const roles = node.groups.filter(([one]) => one === chosen).map(([, role]) => role);
      roles.forEach((role) => users[role].push(n));
      boxes[n].classList.toggle("on", roles.length > 0);
      boxes[n].setAttribute("aria-pressed", String(roles.length > 0));
      const verbs = roles.map((role) => VERBS[role]).join(", ");
      const words = roles.length ? `${verbs} ${chosen + 1}` : node.note;
      const note = boxes[n].querySelector(".note");
      if (note) note.textContent = words;
      boxes[n].setAttribute("aria-label", labelOf(node, words));
    });
    graph.edges.forEach(([, , groups], e) => {
      const isOn = groups.includes(chosen);
      lines[e].classList.toggle("on", isOn);
      lines[e].style.setProperty("--of", isOn ? `var(--s${chosen % 6})` : "");
    });
    for (const element of document.querySelectorAll("[data-group]")) {
      const isOn = Number(element.dataset.group) === chosen;
      element.classList.toggle("picked", isOn);
      if (element.matches("button")) element.setAttribute("aria-pressed", String(isOn));
    }
    for (const row of document.querySelectorAll("table.widths tbody tr")) {
      row.classList.toggle("picked", chosen !== null && row.cells[0].textContent === graph.groups[chosen][0]);
    }
    picked.textContent = chosen === null ? "" : sentence(users);
    if (chosen !== null && move) reveal((users.producer[0] ?? users.carrier[0] ?? users.consumer[0]) || 0);
  }

  function sentence(users) {
    const names = (list) => {
      const shown = list.slice(0, LISTED).map((n) => graph.nodes[n].name).join(", ");
      return list.length > LISTED ? `${shown} and ${list.length - LISTED} more` : shown;
    };
    const parts = [["made by", users.producer], ["passed on by", users.carrier], ["read by", users.consumer]];
    const told = parts.filter(([, list]) => list.length).map(([words, list]) => `${words} ${names(list)}`);
    return `Group ${chosen + 1}, ${graph.groups[chosen][0]}: ${told.join("; ")}.`;
  }

  // --- mouse, fingers, keys -----------------------------------------------------------------

  const boxOf = (event) => {
    const box = event.target.closest?.("[data-node]");
    return box ? Number(box.dataset.node) : null;
  };
  const isUsed = () => host.contains(document.activeElement);

  function neighbour(n, key) {
    const from = layout.at[n];
    const near = (list) => list.sort((a, b) => Math.abs(layout.at[a].x - from.x) - Math.abs(layout.at[b].x - from.x))[0];
    if (key === "ArrowDown") return near(graph.edges.filter(([a]) => a === n).map(([, b]) => b));
    if (key === "ArrowUp") return near(graph.edges.filter(([, b]) => b === n).map(([a]) => a));
    if (key === "Home") return 0;
    if (key === "End") return boxes.length - 1;
    const sign = key === "ArrowLeft" ? -1 : 1;
    return near(layout.at.map((_, m) => m).filter((m) =>
      Math.abs(layout.at[m].y - from.y) < 30 && sign * (layout.at[m].x - from.x) > 0));
  }

  function onKey(event) {
    const n = boxOf(event);
    const acts = {
      "+": () => zoom(ZOOMS.step), "=": () => zoom(ZOOMS.step), "-": () => zoom(1 / ZOOMS.step), 0: fitWidth,
      Enter: () => press(n), " ": () => press(n),
      Escape: () => { if (chosen !== null) pick(chosen); document.activeElement.blur(); tip.hidden = true; },
    };
    const act = acts[event.key] ?? (/^(Arrow|Home$|End$)/.test(event.key) && n !== null ? () => focus(neighbour(n, event.key)) : null);
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  function focus(n) {
    if (n === undefined) return;
    for (const box of boxes) box.setAttribute("tabindex", "-1");
    boxes[n].setAttribute("tabindex", "0");
    boxes[n].focus({ preventScroll: true });
  }

  function press(n) {
    if (n === null) return;
    const groups = [...out(graph.nodes[n]), ...ofRole(graph.nodes[n], "consumer")];
    if (groups.length) pick(groups[(groups.indexOf(chosen) + 1) % groups.length], false);
  }

  function listen() {
    const fingers = new Map();
    let moved = 0;
    picture.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      fingers.set(event.pointerId, event);
      moved = 0;
    });
    picture.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
      if (moved > 4) picture.setPointerCapture(event.pointerId);
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      fingers.set(event.pointerId, event);
      if (other) {
        const span = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const frame = host.getBoundingClientRect();
        zoom(span(event) / Math.max(1, span(before)),
          (event.clientX + other.clientX) / 2 - frame.left, (event.clientY + other.clientY) / 2 - frame.top);
      } else if (moved > 4) {
        view.x += event.clientX - before.clientX;
        view.y += event.clientY - before.clientY;
        place();
      }
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      picture.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    picture.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !isUsed()) return; // the page scrolls
      event.preventDefault();
      const frame = host.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    picture.addEventListener("click", (event) => {
      if (moved > 4) return;
      const n = boxOf(event);
      if (n === null) return focus(Number(boxes.find((box) => box.getAttribute("tabindex") === "0").dataset.node));
      focus(n);
      press(n);
      tell(n);
    });
    picture.addEventListener("pointerover", (event) => {
      const n = boxOf(event);
      if (n !== null && event.pointerType === "mouse" && !fingers.size) tell(n);
    });
    picture.addEventListener("pointerout", () => { tip.hidden = true; });
    picture.addEventListener("focusin", (event) => {
      const n = boxOf(event);
      if (n !== null) { reveal(n); tell(n); }
    });
    picture.addEventListener("focusout", () => { tip.hidden = true; });
    picture.addEventListener("keydown", onKey);
  }

  // --- the rest of the section --------------------------------------------------------------

  const started = () => { if (!picture) build(); };
  const acts = { in: () => zoom(ZOOMS.step), out: () => zoom(1 / ZOOMS.step), width: fitWidth, all: fitAll };
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => { started(); acts[button.dataset.view](); });
  }
  graph.groups.forEach(([name, width], group) => {
    const item = html("li"), button = html("button");
    button.type = "button";
    button.dataset.group = group;
    button.setAttribute("aria-pressed", "false");
    const words = [html("b", "", String(group + 1)), html("span", "", name), html("small", "", width)];
    button.append(drawSwatch(group, graph.looks), ...words);
    button.addEventListener("click", () => { started(); pick(group); });
    item.append(button);
    document.getElementById("graph-groups").append(item);
  });

  const list = document.getElementById("graph-nodes");
  list.addEventListener("toggle", () => {
    const place = list.querySelector(".scroll");
    if (place.firstChild) return;
    place.append(drawTable(graph.nodes));
  });

  // Drawn when it comes near the view: a large graph must not hold up the rest of the page.
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    setTimeout(started); // after "Drawing …" is seen
  }, { rootMargin: "300px" }).observe(host);

  addEventListener("beforeprint", () => {
    started();
    stage.removeAttribute("transform");
    host.append(...slices(graph.nodes, layout));
  });
  addEventListener("afterprint", () => {
    for (const slice of host.querySelectorAll(".slice")) slice.remove();
    place();
  });
})();
