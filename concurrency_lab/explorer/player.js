// Play the scheduler: the reader chooses which thread takes the next step. A state is
// [values of the variables, place of each thread, next state by thread, outcome], a place is
// [function, line, status, why, local variables, leaving a with block]; texts are indices, -1 none.
// All words come with the data.
(() => {
  const fill = (text, ...values) => text.replace(/\{\}/g, (gap) => values.shift() ?? gap);

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    element.className = className;
    element.append(...children);
    return element;
  }

  function group(tag, className, label, ...children) {
    const element = make(tag, className, ...children);
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", label);
    return element;
  }

  function button(className, text, act) {
    const element = make("button", className, text);
    element.type = "button";
    element.addEventListener("click", act);
    return element;
  }

  function levelAt(host) {
    const before = [...document.querySelectorAll("h1, h2, h3, h4, h5")].filter(
      (heading) => heading.compareDocumentPosition(host) & Node.DOCUMENT_POSITION_FOLLOWING);
    return before.length ? +before.at(-1).tagName[1] + 1 : 2;
  }

  function start(host) {
    const game = JSON.parse(host.querySelector("script").textContent);
    const { words, texts, states, places, threads, functions, goal } = game;
    const names = threads.map((thread) => fill(words.thread, thread.name));
    const path = [game.start]; // the states so far
    const taken = []; // the threads that led from each to the next
    let solving = false;

    const here = () => states[path.at(-1)];
    const place = (state, thread) => places[state[1][thread]];
    // a blocked thread that has a next step is free to go: the lock is free, or a time-out may expire
    const status = (state, thread) =>
      place(state, thread)[2] === "blocked" && state[2][thread] >= 0 ? "ready"
        : place(state, thread)[2];
    const lineOf = ([f, line, , , , leaving]) =>
      functions[f].lines[line].trim() + (leaving ? `  ${words.leave}` : "");
    const textOf = (value) => (value < 0 ? "\u2013" : texts[value]);
    const canStep = (thread) => here()[2][thread] >= 0;
    const allNames = (some) => some.length > 1
      ? fill(words.threads, some.map((t) => threads[t].name).join(", ")) : names[some[0]];

    // --- what does not change ------------------------------------------------------------------
    const title = make("p", "player-title", words.title);
    const heading = make("p", "player-goal", goal ? make("span", "", `${words.goal}: `) : "",
      goal ? goal.text : words.title);
    heading.setAttribute("role", "heading");
    heading.setAttribute("aria-level", levelAt(host));
    const variables = game.variables.map((name) => {
      const value = make("dd", "");
      return { value, box: make("div", "player-variable", make("dt", "", name), value) };
    });
    const shared = make("dl", "player-shared", ...variables.map(({ box }) => box));
    const panels = make("div", "player-panels");
    const said = make("p", "player-said");
    const verdict = make("div", "player-verdict");
    const news = make("div", "player-status", said, verdict);
    news.setAttribute("role", "status");
    const back = button("player-tool", words.back, undo);
    const again = button("player-tool", words.restart, restart);
    const solve = button("player-tool", words.solve, solveOn);
    const keys = threads.map((thread) => thread.name).join(", ");
    const steps = make("ol", "player-steps");
    const history = group("div", "player-history", words.steps,
      make("p", "player-label", words.steps), steps);
    const live = group("div", "player-live", goal ? `${words.title}: ${goal.text}` : words.title,
      title, heading, make("p", "player-counts", game.counts),
      variables.length
        ? group("div", "", words.shared, make("p", "player-label", words.shared), shared) : "",
      panels, news, make("div", "player-tools", back, again, game.shortest ? solve : ""),
      make("p", "player-keys", fill(words.keys, keys)), history);
    live.style.setProperty("--threads", threads.length);

    // --- programs: a panel for each thread, or one for threads that run the same function --------
    const controls = threads.map((thread, t) => {
      const next = make("span", "player-unseen");
      const shown = make("span", "");
      const state = make("p", "player-state", next, shown);
      const chip = make("span", "player-chip", thread.name);
      chip.setAttribute("aria-hidden", "true");
      const step = button("player-step", chip, () => take(t));
      step.append(make("span", "", fill(words.step, names[t])));
      step.setAttribute("aria-describedby", state.id = `player-${Math.random()}`);
      return { step, next, state, shown, box: make("div", "player-control", step, state) };
    });
    const listed = threads.map((_, t) => [...new Set([threads[t].function,
      ...states.map((state) => place(state, t)[0])])].filter((f) => f >= 0));
    const alike = new Map();
    threads.forEach((_, t) => {
      const key = listed[t].join();
      alike.set(key, [...alike.get(key) ?? [], t]);
    });
    const groups = [...alike.values()];
    const indentOf = (line) => line.search(/\S|$/);
    const longest = (space) => Math.min(36, Math.max(...functions.flatMap((f) =>
      f.lines.map((line) => line.length - indentOf(line) * (1 - space)))));
    let rows = []; // of the listings: {row, marks, leave, f, line, members}
    let columns;

    function listing(f, members) {
      return make("div", "player-code", ...functions[f].lines.map((line, n) => {
        const marks = make("span", "player-marks");
        marks.style.setProperty("--members", members.length);
        const code = make("code", "", line.trim() || "\u00a0");
        code.style.setProperty("--indent", indentOf(line));
        const leave = make("span", "player-leave");
        code.append(leave);
        const row = make("div", "player-line", marks, code);
        rows.push({ row, marks, leave, f, line: n, members });
        return row;
      }));
    }

    function arrange() {
      const narrow = live.clientWidth < Math.max(320 * groups.length, 480);
      const space = narrow ? 0.5 : 1;
      panels.classList.toggle("player-narrow", narrow);
      panels.style.setProperty("--longest", longest(space));
      const wide = live.clientWidth / threads.length >= longest(space) * 8.5 + 80;
      if (wide === columns) return;
      columns = wide;
      rows = [];
      panels.replaceChildren(...(wide ? threads.map((_, t) => [t]) : groups).map((members) =>
        group("div", `player-panel ${members.length > 1 ? "" : "player-alone"}`, allNames(members),
          make("p", "player-of", allNames(members)),
          group("div", "player-listing", fill(words.program, allNames(members)),
            ...listed[members[0]].map((f) => listing(f, members))),
          make("div", "player-controls", ...members.map((t) => controls[t].box)))));
      panels.classList.toggle("player-one", panels.children.length === 1);
      drawPrograms();
    }

    // --- steps -----------------------------------------------------------------------------------
    function changed(before, after) {
      return game.variables.flatMap((name, v) => before[0][v] === after[0][v] ? []
        : [{ name, v, old: textOf(before[0][v]), now: textOf(after[0][v]) }]);
    }

    function take(thread) {
      if (!canStep(thread)) {
        say(`${names[thread]}: ${reason(thread)}`);
        return;
      }
      const before = here();
      solving = solving && game.shortest[taken.length] === thread;
      const next = before[2][thread];
      const loop = here()[3] < 0 ? path.indexOf(next) : -1;
      path.push(next);
      taken.push(thread);
      draw();
      const [subject, rest] = fill(words.ran, names[thread]).split("{}");
      said.replaceChildren(subject,
        make("code", "", lineOf(place(before, thread)).replace(/:$/, "")), `${rest} `, [
        ...changed(before, here()).map(({ name, now }) => fill(words.is_now, name, now)),
        ...threads.flatMap((_, t) => turn(t, before, here())),
        loop >= 0 ? fill(words.loop, loop) : "",
      ].filter(Boolean).join(" "));
    }

    function turn(t, before, after) {
      const is = status(after, t);
      const why = place(after, t)[3];
      if (status(before, t) === is) return [];
      if (is === "blocked") return [fill(words.is_blocked, names[t], whyNot(is, why))];
      if (is === "raised") return [fill(words.raised, names[t], texts[why])];
      return [fill(is === "done" ? words.is_done : words.goes_on, names[t])];
    }

    function reason(t) {
      const [, , is, why] = place(here(), t);
      if (is === "done") return words.done;
      return why >= 0 ? whyNot(is, why) : words.unexplored;
    }

    function whyNot(is, why) {
      return is === "blocked" ? fill(words.waits_for, texts[why]) : texts[why];
    }

    function undo() {
      if (!taken.length) return;
      solving = false;
      path.pop();
      taken.pop();
      draw();
      say(taken.length ? words.went_back : words.choose);
    }

    function restart() {
      path.length = 1;
      taken.length = 0;
      solving = false;
      draw();
      say(words.choose);
    }

    function solveOn() {
      if (!solving) {
        restart();
        solving = true;
      }
      take(game.shortest[taken.length]);
    }

    // --- drawing ---------------------------------------------------------------------------------
    function say(sentence) {
      said.textContent = sentence;
    }

    function drawPrograms() {
      for (const { row, marks, leave, f, line, members } of rows) {
        const leaving = [];
        const at = members.map((t) => {
          const [where, l, , , , leaves] = place(here(), t);
          const is = status(here(), t);
          const isHere = where === f && l === line && (is === "ready" || is === "blocked");
          if (isHere && leaves) leaving.push(members.length > 1 ? threads[t].name : "");
          return isHere ? is : "";
        });
        leave.textContent = leaving.length ? `  ${words.leave} ${leaving.join(", ")}` : "";
        row.classList.toggle("player-next", at.some(Boolean));
        marks.replaceChildren(...at.map((is, i) => {
          const mark = make("span", is ? `player-chip player-${is}` : "",
            is ? threads[members[i]].name : "");
          mark.setAttribute("aria-hidden", "true");
          return mark;
        }));
      }
    }

    function drawControls() {
      const next = solving ? game.shortest[taken.length] : -1;
      controls.forEach(({ step, next: nextLine, state, shown }, t) => {
        const spot = place(here(), t);
        const [, , , , locals] = spot;
        const is = status(here(), t);
        const over = is === "done" || is === "raised";
        step.setAttribute("aria-disabled", !canStep(t));
        step.classList.toggle("player-hinted", t === next);
        state.className = `player-state player-is-${is}`;
        nextLine.textContent = over ? "" : `${fill(words.next_line, lineOf(spot))}. `;
        const known = locals >= 0 ? [make("code", "", texts[locals])] : [];
        if (!canStep(t)) known.unshift(make("span", "player-why", reason(t)));
        shown.replaceChildren(...known);
      });
    }

    function draw() {
      const before = taken.length ? states[path.at(-2)] : here();
      const changes = changed(before, here());
      variables.forEach(({ value, box }, v) => {
        const change = changes.find((one) => one.v === v);
        box.classList.toggle("player-changed", !!change);
        const now = make("code", "player-now", textOf(here()[0][v]));
        const old = make("del", "", change ? change.old : "");
        old.setAttribute("aria-hidden", "true");
        value.replaceChildren(...(change ? [old, "\u2002", now] : [now]));
      });
      drawPrograms();
      drawControls();
      drawVerdict();
      back.setAttribute("aria-disabled", !taken.length);
      again.setAttribute("aria-disabled", !taken.length);
      solve.textContent = solving && taken.length < game.shortest.length
        ? words.solve_next : words.solve;
      while (steps.children.length > taken.length) steps.lastChild.remove();
      while (steps.children.length < taken.length) steps.append(stepRow(steps.children.length));
      history.hidden = !taken.length;
    }

    function stepRow(n) {
      const [before, after] = [states[path[n]], states[path[n + 1]]];
      const t = taken[n];
      const lanes = make("span", "player-lanes", ...threads.map((thread, i) =>
        make("span", i === t ? "player-chip" : "", i === t ? thread.name : "")));
      const notes = changed(before, after).map(({ name, now }) => `${name} = ${now}`);
      const why = place(after, t)[3];
      const is = status(after, t);
      if (why >= 0 && is !== "ready") notes.push(whyNot(is, why));
      return make("li", "", lanes, make("span", "player-did",
        make("code", "", lineOf(place(before, t))),
        ...notes.map((note) => make("span", "player-note", note))));
    }

    function ending() {
      if (here()[3] >= 0) return here()[3];
      const first = path.indexOf(path.at(-1)); // going round, with every thread that can step
      const round = path.slice(first, -1);
      const fair = threads.every((_, t) => taken.slice(first).includes(t)
        || round.every((state) => states[state][2][t] < 0));
      return round.length && fair
        ? game.outcomes.findIndex((outcome) => outcome.kind === "livelock") : -1;
    }

    function drawVerdict() {
      const end = ending();
      verdict.hidden = end < 0;
      if (end < 0) {
        verdict.replaceChildren();
        return;
      }
      const { kind, ok, lines } = game.outcomes[end];
      const good = goal ? goal.outcomes.includes(end) : ok;
      const sign = make("span", "", good ? "\u2713" : "\u2717");
      sign.setAttribute("aria-hidden", "true");
      verdict.classList.toggle("player-good", good);
      verdict.replaceChildren(
        make("p", "player-ruling", sign,
          ` ${goal ? (good ? words.reached : words.missed) : words.end}: ${words[kind] ?? kind}`),
        ...lines.map((line) => make("p", "", make("code", "", line))));
    }

    // --- keys: a thread's letter, also where the keyboard is set to Hangul -------------------------
    live.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
      const letter = /^[a-z]$/i.test(event.key) ? event.key : event.code.replace("Key", "");
      const thread = threads.findIndex(({ name }) => name === letter.toUpperCase());
      if (event.key === "Backspace") undo();
      else if (thread >= 0) take(thread);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });

    const root = game.style ? host.attachShadow({ mode: "open" }) : host;
    if (game.style) root.append(make("style", "", game.style), document.createElement("slot"));
    root.append(live);
    host.dataset.ready = "";
    arrange();
    draw();
    say(words.choose);
    new ResizeObserver(arrange).observe(live);
  }

  for (const host of document.querySelectorAll("[data-player]:not([data-ready])")) start(host);
})();
