// The pages work without this script. With it they follow a run, take keys, and change without loading anew.
"use strict";
(() => {
  const EVERY = { "under way": 2000, stopped: 4000, finished: 8000, "": 4000 };
  const PATIENCE = 10000;  // a viewer that takes a question and never answers is lost too
  const remember = { mode: "slide", boxes: true, cut: 50 };
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  let tag = null, turn = 0, busy = false, pressed = false, stale = false;

  document.documentElement.classList.add("scripted");

  // -- one way to change a page: fetch it, and put in the parts that differ

  function put(text, { keepFocus }) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const focus = document.activeElement, id = focus && focus.id, open = $$("details[open]").map((one) => one.id);
    const scrolled = $$(".scroll").map((one) => one.scrollLeft);
    for (const part of $$("[data-part], #state, [data-filters]", page)) {
      const old = part.id ? document.getElementById(part.id) : $("[data-filters]");
      if (!old || old.outerHTML === part.outerHTML) continue;
      if (part.matches("[data-filters]")) { if (!keepFocus || !old.contains(focus)) old.replaceWith(part); continue; }
      if (keepFocus && old.contains(focus) && focus.matches("input, select")) continue;
      keepPictures(old, part);
      old.replaceWith(part);
    }
    document.title = page.title;
    document.body.dataset.state = page.body.dataset.state;
    for (const name of open) if (name && document.getElementById(name)) document.getElementById(name).open = true;
    $$(".scroll").forEach((one, place) => { if (scrolled[place]) one.scrollLeft = scrolled[place]; });
    if (keepFocus && id && document.activeElement === document.body) document.getElementById(id)?.focus({ preventScroll: true });
    dress();
  }

  // A picture that is there already is moved over, so that it does not blink.
  function keepPictures(from, to) {
    const known = new Map($$("img[src]", from).map((one) => [one.getAttribute("src"), one]));
    for (const image of $$("img[src]", to)) {
      const old = known.get(image.getAttribute("src"));
      if (old && old.className === image.className) { known.delete(image.getAttribute("src")); image.replaceWith(old); }
    }
  }

  async function go(address, { push = true, focus = null } = {}) {
    const mine = ++turn;
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" } });
      const text = await answer.text();
      if (mine !== turn) return;
      if (!answer.ok || !sameView(address)) { location.assign(address); return; }
      tag = answer.headers.get("ETag");
      if (push) history.pushState(null, "", address);
      put(text, { keepFocus: false });
      if (focus) ($(focus) || $("#main")).focus({ preventScroll: true });
      const told = $(".pages span:not(.off)");
      $("#said").textContent = told ? `${told.textContent}${$(".told h1") ? ", " + $(".told h1").textContent : ""}` : "";
    } catch { location.assign(address); }
  }

  const sameView = (address) => new URL(address, location.href).pathname === location.pathname;

  async function follow() {
    if (!document.hidden && !busy && $("[data-part]")) {
      busy = true;
      const mine = turn;
      try {
        const signal = AbortSignal.timeout(PATIENCE);
        const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", signal });
        if (answer.status === 200 && mine === turn) {
          const text = await answer.text();
          const first = tag === null;
          tag = answer.headers.get("ETag");
          // Not under a hand that is pressing or marking something: that would be lost.
          const still = !pressed && getSelection().isCollapsed && !$("dialog[open]");
          if (!still) tag = null, stale = true;
          else if (mine === turn && (!first || stale)) { stale = false; put(text, { keepFocus: true }); }
        }
        document.body.classList.toggle("lost", ![200, 304, 503].includes(answer.status));
      } catch { document.body.classList.add("lost"); }
      busy = false;
    }
    setTimeout(follow, EVERY[document.body.dataset.state] ?? 4000);
  }

  // -- how things look that no server knows: times, the chosen way to look at a pair

  function dress() {
    const now = Date.now() / 1000;
    for (const one of $$("time[data-ago]")) {
      const then = Number(one.dataset.ago), ago = Math.max(0, now - then);
      one.dateTime = new Date(then * 1000).toISOString();
      const text = ago < 5 ? "just now" : ago < 90 ? `${Math.round(ago)} s ago` : ago < 5400 ? `${Math.round(ago / 60)} min ago`
        : ago < 129600 ? `${Math.round(ago / 3600)} h ago` : one.dateTime.slice(0, 10);
      if (one.textContent !== text) one.textContent = text;
    }
    show(remember.mode);
    cut(remember.cut);
    boxes(remember.boxes);
  }

  function show(mode) {
    const canvas = $(".canvas");
    if (!canvas || canvas.dataset.shown === "single") return;
    remember.mode = mode;
    canvas.dataset.shown = mode;
    for (const one of $$("[data-mode]")) one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
    for (const one of $$(mode === "gap" ? ".three img" : mode === "unlit" ? ".four img" : ":not(*)", canvas)) if (!one.src) one.src = one.dataset.src;
    const slider = $(".slider");
    if (slider) slider.hidden = mode !== "slide", slider.style.display = mode === "slide" ? "" : "none";
  }

  function cut(value) {
    remember.cut = Number(value);
    $(".canvas")?.style.setProperty("--cut", `${value}%`);
    const range = $(".slider input");
    if (range && range.value !== String(value)) range.value = value;
  }

  function boxes(shown) {
    remember.boxes = shown;
    $(".canvas")?.classList.toggle("no-boxes", !shown);
    $("[data-boxes]")?.setAttribute("aria-pressed", String(shown));
  }

  // -- hands

  document.addEventListener("click", (event) => {
    const at = event.target;
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || !(at instanceof Element)) return;
    const mode = at.closest("[data-mode]");
    if (mode) return show(mode.dataset.mode);
    if (at.closest("[data-boxes]")) return boxes(!remember.boxes);
    if (at.closest(".help")) return $("#keys").showModal();
    const link = at.closest("a[href]");
    if (link && link.origin === location.origin && sameView(link.href) && !link.hash && $("[data-part]")) {
      event.preventDefault();
      const focus = link.rel ? `a[rel=${link.rel}]` : null;
      go(link.href, { focus }).then(() => { if (!link.rel || link.closest("#fight")) scrollTo(0, 0); });
    }
  });

  document.addEventListener("input", (event) => { if (event.target.matches(".slider input")) cut(event.target.value); });

  document.addEventListener("pointermove", (event) => { if (event.buttons === 1 && drag) slide(event); });
  let drag = false;
  document.addEventListener("pointerdown", (event) => {
    pressed = true;
    drag = Boolean(event.target.closest?.(".canvas[data-shown=slide]"));
    if (drag) { event.preventDefault(); slide(event); }
  });
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { drag = pressed = false; });
  function slide(event) {
    const box = $(".canvas").getBoundingClientRect();
    cut(Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width))));
  }

  function filtered(form) {
    const chosen = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value && !(name === "sort" && value === "newest")) chosen.append(name, value);
    return `${form.getAttribute("action")}?${chosen}`;
  }
  document.addEventListener("change", (event) => {
    const form = event.target.closest("[data-filters]");
    if (form) go(filtered(form), { focus: `[data-filters] [name="${event.target.name}"]` });
  });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-filters]")) { event.preventDefault(); go(filtered(event.target)); }
  });
  addEventListener("popstate", () => go(location.href, { push: false }));

  // -- keys

  function step(rel) {
    const tiles = $$(".tiles .tile"), here = tiles.indexOf(document.activeElement);
    if ($("#edit")) { const link = $(`.pages a[rel=${rel}]`); if (link) go(link.href, { focus: "#main" }); return; }
    if (!tiles.length) return;
    const next = here < 0 ? (rel === "next" ? 0 : tiles.length - 1) : here + (rel === "next" ? 1 : -1);
    if (tiles[next]) return tiles[next].focus();
    const link = $(`.pages a[rel=${rel}]`);
    if (link) go(link.href).then(() => { const found = $$(".tiles .tile"); found[rel === "next" ? 0 : found.length - 1]?.focus(); });
  }

  function row(direction) {
    const tiles = $$(".tiles .tile"), here = document.activeElement;
    if (!tiles.includes(here)) return false;
    const box = here.getBoundingClientRect();
    const same = tiles.filter((one) => Math.abs(one.getBoundingClientRect().left - box.left) < 4);
    same[same.indexOf(here) + direction]?.focus();
    return true;
  }

  const KEYS = {
    ArrowRight: () => step("next"), j: () => step("next"), ArrowLeft: () => step("prev"), k: () => step("prev"),
    ArrowDown: () => row(1), ArrowUp: () => row(-1),
    " ": () => { if (!$("#edit .slider")) return false; if (remember.mode !== "slide") show("slide"); cut(remember.cut > 50 ? 0 : 100); },
    1: () => show("slide"), 2: () => show("pair"), 3: () => show("gap"), 4: () => show("unlit"),
    b: () => boxes(!remember.boxes), u: () => { const up = $("a[rel=up]"); if (!up) return false; location.assign(up.href); },
    "?": () => $("#keys").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (at.matches?.("input, select, textarea") || (event.key === " " && at.matches?.("button, summary"))) return;
    const own = KEYS[event.key];
    if (own && own() !== false) event.preventDefault();
  });

  const help = $(".help");
  if (help) help.hidden = false;
  dress();
  setInterval(dress, 5000);
  follow();
})();
