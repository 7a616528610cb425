"use strict";
// The numbers of single rows at the slider's T: probabilities of members, ensemble and students, and the scores of rows.
softlabels.parts.rowNumbers = (data) => {
  const { logSoftmax, within, weightsAt } = softlabels;
  const read = (name) => (data[name] ? softlabels.numbers(data[name]) : null);
  const isValues = data.kind === "values", isSoftmax = data.kind === "softmax";
  const M = data.members.length, S = data.students.length;
  const places = read("places");
  const N = places.length;
  const [ids, labels, logP, curves, inTail] = ["ids", "labels", "log_p", "curves", "in_tail"].map(read);
  const [entropy, disagreement, kl, tops] = ["entropy", "disagreement", "kl", "students_top"].map(read);
  const [studentP, studentCurves] = ["student_log_p", "student_curves"].map(read);
  const [values, mean, hard, studentValues] = ["values", "mean", "hard", "student_values"].map(read);
  const K = isValues ? mean.shape[1] : ids.shape[1];
  const J = isValues ? 0 : data.nodes.length;
  const names = new Map(Object.entries(data.names).map(([id, name]) => [Number(id), name]));
  const atPosition = [], topAt = []; // of each position, at T: its scores, and the ensemble's most probable class
  let T, weights;

  const nameOf = (id) => names.get(id) ?? String(id);
  const idAt = (n, k) => ids[(ids.shape[0] === 1 ? 0 : n) * K + k];
  const kOf = (n, id) => {
    const start = (ids.shape[0] === 1 ? 0 : n) * K;
    return ids.subarray(start, start + K).indexOf(id);
  };
  const labelOf = (n) => (isSoftmax && labels ? labels[n] : -1);
  const isHard = (n, k) => (isSoftmax ? labelOf(n) === idAt(n, k) : Boolean(labels) && labels[n * K + k] === 1);
  const asked = (r, s) => data.rows[r].asked[s];
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));

  function along(curve, start) {
    let found = 0;
    for (let j = 0; j < J; j++) found += weights[j] * curve[start + j];
    return found;
  }

  // Probabilities at T of what carries itself: all logits of a softmax, or those of a sigmoid.
  function own(logits, base) {
    const found = isSoftmax ? logSoftmax(logits.subarray(base, base + K), T / data.nodes[data.reference]) : new Float64Array(K);
    for (let k = 0; k < K; k++) found[k] = isSoftmax ? Math.exp(found[k]) : sigmoid(logits[base + k] / T);
    return found;
  }

  // Of member m, and of student s, for position n's kept classes.
  function memberOf(n, m) {
    const base = (n * M + m) * K;
    if (!curves) return own(logP, base);
    const ratio = data.nodes[data.reference] / T;
    const stored = along(curves, (n * M + m) * 2 * J);
    const tail = inTail ? along(curves, (n * M + m) * 2 * J + J) : 0;
    return Float64Array.from({ length: K }, (_, k) => Math.exp(logP[base + k] * ratio + (inTail && inTail[base + k] ? tail : stored)));
  }

  function studentOf(n, s) {
    const base = (s * N + n) * K;
    if (!curves) return own(studentP, base);
    const ratio = data.nodes[data.reference] / T, stored = along(studentCurves, (s * N + n) * J);
    return Float64Array.from({ length: K }, (_, k) => Math.exp(studentP[base + k] * ratio + stored));
  }

  const membersOf = (n) => [...Array(M).keys()].map((m) => memberOf(n, m));

  function ensembleOf(members) {
    const found = new Float64Array(K);
    for (let m = 0; m < M; m++) for (let k = 0; k < K; k++) found[k] += data.weights[m] * members[m][k];
    return found;
  }

  // -sum p log p, of a sigmoid with both ends.
  function entropyOf(p) {
    let found = 0;
    for (let k = 0; k < K; k++) {
      if (p[k] > 0) found -= p[k] * Math.log(p[k]);
      if (!isSoftmax && p[k] < 1) found -= (1 - p[k]) * Math.log(1 - p[k]);
    }
    return found;
  }

  // -sum p log q of a student's q, from its logits: a q that rounds to 0 or 1 has a logarithm all the same.
  function crossTo(p, base) {
    let found = 0;
    if (isSoftmax) {
      const logs = logSoftmax(studentP.subarray(base, base + K), T / data.nodes[data.reference]);
      for (let k = 0; k < K; k++) if (p[k] > 0) found -= p[k] * logs[k];
      return found;
    }
    for (let k = 0; k < K; k++) {
      const z = studentP[base + k] / T, least = Math.log1p(Math.exp(-Math.abs(z)));
      found += p[k] * (least + Math.max(0, -z)) + (1 - p[k]) * (least + Math.max(0, z));
    }
    return found;
  }

  // Scores of position n at T.
  function positionScores(n, r, members, p) {
    const of = (s, compute) => (asked(r, s) ? compute() : 0);
    if (entropy) {
      return {
        entropy: along(entropy, n * J), disagreement: disagreement ? along(disagreement, n * J) : 0,
        students: data.students.map((_, s) => of(s, () => along(kl, (s * N + n) * J))),
      };
    }
    const H = entropyOf(p);
    return {
      entropy: H,
      disagreement: M > 1 ? H - members.reduce((sum, each, m) => sum + data.weights[m] * entropyOf(each), 0) : 0,
      students: data.students.map((_, s) => of(s, () => crossTo(p, (s * N + n) * K) - H)),
    };
  }

  function addValues(found, n) {
    let apart = 0, off = 0;
    for (let d = 0; d < K; d++) {
      const parts = (x) => ((x - mean[n * K + d]) / data.usual[d]) ** 2;
      for (let m = 0; m < M; m++) apart += data.weights[m] * parts(values[(n * M + m) * K + d]);
      if (hard && !Number.isNaN(hard[n * K + d])) off += parts(hard[n * K + d]);
      for (let s = 0; s < S; s++) found.students[s] += parts(studentValues[(s * N + n) * K + d]) / K;
    }
    found.disagreement += Math.sqrt(apart / K);
    found.residual += Math.sqrt(off / K);
  }

  // The scores of row r at T: means over its positions.
  function scoresOf(r) {
    const [start, stop] = [data.starts[r], data.starts[r + 1]], count = Math.max(1, stop - start);
    const found = { entropy: 0, disagreement: 0, residual: 0, students: data.students.map(() => 0), differs: false };
    for (let n = start; n < stop; n++) {
      if (isValues) addValues(found, n);
      else {
        const members = membersOf(n), p = ensembleOf(members);
        const at = (atPosition[n] = positionScores(n, r, members, p));
        topAt[n] = idAt(n, p.indexOf(Math.max(...p)));
        found.entropy += at.entropy;
        found.disagreement += at.disagreement;
        at.students.forEach((each, s) => (found.students[s] += each));
      }
      if (isSoftmax && !found.differs) found.differs = data.students.some((_, s) => asked(r, s) && tops[s * N + n] !== topAt[n]);
    }
    for (const name of ["entropy", "disagreement", "residual"]) found[name] = Math.max(0, found[name] / count);
    found.students = found.students.map((each, s) => (asked(r, s) ? Math.max(0, each / count) : -1));
    return found;
  }

  // Whether row r has a position with this hard label, or one that the ensemble takes for it.
  function hasClass(r, id) {
    for (let n = data.starts[r]; n < data.starts[r + 1]; n++) if (labelOf(n) === id || topAt[n] === id) return true;
    return false;
  }

  // The scores of all rows at a temperature; labels that are known at one temperature stay there.
  function scoresAt(temperature) {
    T = isValues ? temperature : within(temperature, data.nodes);
    weights = isValues ? [] : weightsAt(T, data.nodes);
    return data.rows.map((_, r) => scoresOf(r));
  }

  return {
    isValues, isSoftmax, M, S, N, K, places, values, mean, hard, studentValues, atPosition, topAt,
    nameOf, idAt, kOf, labelOf, isHard, asked, membersOf, ensembleOf, studentOf, hasClass, scoresAt,
  };
};
