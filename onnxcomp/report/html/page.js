"use strict";
(() => {
  const root = document.documentElement;
  const all = (query, from = document) => [...from.querySelectorAll(query)];

  // Colours: what was chosen before, if this browser keeps such things for files
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("onnxcomp-theme") || "auto";
      localStorage.setItem("onnxcomp-theme", value);
    } catch { /* a page without storage: the choice holds for this visit */ }
    return value || "auto";
  };
  const buttons = all("[data-theme]");
  const choose = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.theme === name)));
  };
  buttons.forEach((one) => one.addEventListener("click", () => { kept(one.dataset.theme); choose(one.dataset.theme); }));
  all(".themes").forEach((one) => { one.hidden = false; });
  choose(kept());

  // Marks say what they are on hover and focus; arrows go from one to the next
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (mark) => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const box = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = box.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - own.height - 4)}px`;
  };
  const light = (key, on) => {
    if (key) all("[data-key]").forEach((one) => { if (one.dataset.key === key) one.classList.toggle("lit", on); });
  };
  all("svg.chart").forEach((chart) => {
    const marks = all(".mark", chart);
    marks.forEach((mark, index) => {
      const title = mark.querySelector("title");
      mark.setAttribute("aria-label", title.textContent);
      title.remove();
      mark.setAttribute("tabindex", index ? "-1" : "0");
      const enter = () => { show(mark); light(mark.dataset.key, true); };
      const leave = () => { hide(); light(mark.dataset.key, false); };
      mark.addEventListener("pointerenter", enter);
      mark.addEventListener("pointerleave", leave);
      mark.addEventListener("focus", enter);
      mark.addEventListener("blur", leave);
      mark.addEventListener("keydown", (event) => {
        if (event.key === "Escape") return hide();
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const next = event.key === "Home" ? 0 : event.key === "End" ? marks.length - 1 : index + (step || 0);
        if ((step || event.key === "Home" || event.key === "End") && marks[next]) {
          event.preventDefault();
          mark.setAttribute("tabindex", "-1");
          marks[next].setAttribute("tabindex", "0");
          marks[next].focus();
        }
        return undefined;
      });
    });
  });
  addEventListener("scroll", hide, { passive: true });
  all("tr[data-key]").forEach((row) => {
    row.addEventListener("pointerenter", () => light(row.dataset.key, true));
    row.addEventListener("pointerleave", () => light(row.dataset.key, false));
  });

  // Tables are sorted by their heads
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  all("table").forEach((table) => {
    const heads = all("thead th", table);
    if (table.tBodies[0].rows.length < 3) return;
    heads.forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => (down ? -1 : 1) * compare(keyOf(a, column), keyOf(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  });

  // What is to be copied can be
  if (navigator.clipboard) {
    all(".code").forEach((block) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(block.querySelector("code").textContent);
          button.textContent = "Copied";
        } catch {
          button.textContent = "Select it, and copy by hand";
        }
      });
      block.append(button);
    });
  }
})();
