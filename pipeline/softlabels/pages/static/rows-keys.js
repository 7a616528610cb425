"use strict";
// The keys of a list of rows: j and k walk, / finds. `turn(step)` shows the next or last page of rows, or says that there is none.
softlabels.parts.rowKeys = (root, list, turn) => {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, textarea")) return;
    if (softlabels.parts.rowsAt === undefined) softlabels.parts.rowsAt = root;
    if (softlabels.parts.rowsAt !== root) return;
    if (event.key === "/") {
      event.preventDefault();
      root.querySelector(".row-filter").focus();
    }
    const step = { j: 1, k: -1 }[event.key];
    if (!step) return;
    const rows = [...list.querySelectorAll(".row")];
    const now = rows.indexOf(document.activeElement?.closest?.(".row"));
    let next = now < 0 ? 0 : now + step;
    if (next < 0 || next >= rows.length) {
      if (!turn(step)) return;
      next = step > 0 ? 0 : list.querySelectorAll(".row").length - 1;
    }
    [...list.querySelectorAll(".row")][next]?.focus();
  });
  // Of several sections on rows the keys are those of the one that was used last.
  for (const type of ["focusin", "pointerdown"]) root.addEventListener(type, () => (softlabels.parts.rowsAt = root));
};
