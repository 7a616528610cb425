"use strict";
// What is said of one position: bars of the probabilities at T, or a table of the values.
softlabels.parts.rowBars = (data, own) => {
  const { element, COLOURS } = softlabels;
  const { M, K } = own;
  const TOP = 8, MEMBERS = 8;
  const TEACHER = M > 1 ? "ensemble" : "teacher";
  const STUDENT = data.students.map((each, at) => (each.kind === "hard" ? COLOURS[1] : COLOURS[(2 + at) % COLOURS.length]));

  const legend = () =>
    element("p", { class: "row-legend quiet" },
      [[TEACHER, COLOURS[0]],
        ...(M > 1 ? [[`${M > MEMBERS ? `${MEMBERS} of ${M}` : M} members, thin, in their order`, "currentColor"]] : []),
        ...data.students.map((each, s) => [each.label, STUDENT[s]])]
        .map(([text, colour]) => element("span", {}, element("i", { style: `background:${colour}` }), element("bdi", {}, text))),
      element("span", {}, "● hard label"));

  const percent = (p) => `${(100 * p).toFixed(1)}%`;
  const bar = (who, id, p, colour, thin) =>
    element("span", { class: thin ? "bar-line thin" : "bar-line", title: `${who === "ensemble" ? TEACHER : who}: ${percent(p)}` },
      element("span", {
        class: "bar-fill", "data-who": who, "data-class": id, "data-probability": p.toFixed(4),
        style: `width:${(100 * Math.min(1, Math.max(0, p))).toFixed(2)}%;background:${colour}`,
      }));

  function bars(r, n) {
    const members = own.membersOf(n);
    const ensemble = own.ensembleOf(members);
    const students = data.students.map((_, s) => (own.asked(r, s) ? own.studentOf(n, s) : null));
    const real = [...Array(K).keys()].filter((k) => own.idAt(n, k) >= 0).sort((a, b) => ensemble[b] - ensemble[a]);
    const kept = real.filter((k, at) => at < TOP || own.isHard(n, k));
    const rest = (p) => 1 - kept.reduce((sum, k) => sum + p[k], 0);
    const lines = kept.map((k) => [own.idAt(n, k), own.nameOf(own.idAt(n, k)), own.isHard(n, k), (p) => p[k]]);
    if (own.isSoftmax && kept.length < data.classes) {
      lines.push([-1, `${(data.classes - kept.length).toLocaleString("en")} others`, false, rest]);
    }
    return element("div", { class: "row-bars", "data-position": own.places[n] }, lines.map(([id, name, isOwn, of]) =>
      element("div", { class: isOwn ? "bar-class hard" : "bar-class" },
        element("span", { class: "bar-name" }, isOwn ? "● " : "", element("bdi", {}, name)),
        element("span", { class: "bar-all" },
          bar("ensemble", id, of(ensemble), COLOURS[0], false),
          M > 1 ? members.slice(0, MEMBERS).map((p, m) => bar(`member ${m}`, id, of(p), "currentColor", true)) : null,
          students.map((p, s) => (p ? bar(data.students[s].label, id, of(p), STUDENT[s], false) : null))),
        element("span", { class: "bar-number" }, percent(of(ensemble))))));
  }

  function vector(r, n) {
    const { values, mean, hard, studentValues, N } = own;
    const text = (x) => (Number.isNaN(x) ? "none" : x.toPrecision(4));
    const D = values.shape[2];
    const head = ["", TEACHER, ...(M > 1 ? ["least", "most"] : []), ...(hard ? ["hard", "error"] : []), ...data.students.map((each) => each.label)];
    const line = (d) => {
      const middle = mean[n * K + d], all = [...Array(M).keys()].map((m) => values[(n * M + m) * D + d]);
      const truth = hard ? hard[n * K + d] : NaN;
      return [own.nameOf(d), text(middle), ...(M > 1 ? [text(Math.min(...all)), text(Math.max(...all))] : []),
        ...(hard ? [text(truth), text(middle - truth)] : []),
        ...data.students.map((_, s) => (own.asked(r, s) ? text(studentValues[(s * N + n) * K + d]) : ""))];
    };
    const cells = (tag, row) => element("tr", {}, row.map((each, at) => element(tag, { class: at ? "number" : null }, element("bdi", {}, each))));
    return element("div", { class: "table" }, element("table", {}, element("thead", {}, cells("th", head)),
      element("tbody", {}, [...Array(Math.min(K, 16)).keys()].map((d) => cells("td", line(d))))));
  }

  return { legend, of: own.isValues ? vector : bars, colours: { teacher: TEACHER, ensemble: COLOURS[0], students: STUDENT } };
};
