// Where a view stands in the tree of steps, and how it goes on.

const PLAY_PAUSE = 700; // milliseconds between two steps that are played
const STEPS_AHEAD = 4; // steps that are asked for while the kernel is busy

/** True where all rows are finished. */
const over = (turns) => turns.at(-1).reasons.every((reason) => reason !== null);

export class Walk {
  shown; // the trait: every step and branch there is
  // A stage of null is the last one; `line` is the line of the timeline that is looked at.
  view = { branch: 0, step: 0, row: 0, stage: null, line: "choice" };
  left = new Map(); // the step at which a branch was left
  running = null; // "play" or "run"
  ahead = 0; // steps still to be taken after the one under way
  timer = null;

  /**
   * @param {{ ask: Function, waiting: () => boolean, draw: () => void, drawActions: () => void }} host `ask` asks
   *   the kernel, and is null in a saved page
   */
  constructor(host) {
    this.host = host;
  }

  /** The turns of a branch, from the first step on. */
  path = (number = this.view.branch) => {
    const { parent, start, turns } = this.shown.branches[number];
    return parent === null ? turns : [...this.path(parent).slice(0, start), ...turns];
  };

  atEnd = () => this.view.step === this.path().length - 1;

  isOver = () => over(this.path());

  go(branch, step) {
    this.left.set(this.view.branch, this.view.step);
    Object.assign(this.view, { branch, step });
    this.host.draw();
  }

  /** Go where the learner points, and stay there. */
  leave(branch, step = this.left.get(branch) ?? this.shown.branches[branch].start) {
    this.stop();
    this.go(branch, step);
  }

  /** Look at another row or stage. */
  pick(what) {
    Object.assign(this.view, what);
    this.host.draw();
  }

  back() {
    this.stop();
    this.arrive(this.view.step - 1);
  }

  /** One step forward: what is known is shown at once, the rest is asked of the kernel. */
  forward() {
    const { ask, waiting } = this.host;
    const turns = this.path();
    const { branch, step } = this.view;
    if (step < turns.length - 1) this.arrive(this.running === "run" ? turns.length - 1 : step + 1);
    else if (!ask || over(turns)) this.stop();
    else if (waiting()) this.ahead = Math.min(this.ahead + 1, STEPS_AHEAD);
    else
      ask({ session: this.shown.session, forward: { branch, taken: turns.length } }, () => {
        const grown = this.path(branch).length > step + 1;
        if (grown && this.view.branch === branch && this.view.step === step) this.arrive(step + 1);
      });
  }

  arrive(step) {
    this.view.step = step;
    this.host.draw();
    this.proceed();
  }

  /** Take the next of the steps that are played, run or asked for. */
  proceed() {
    if (this.running === "play") this.timer = setTimeout(() => this.forward(), PLAY_PAUSE);
    else if (this.running === "run") this.forward();
    else if (this.ahead > 0) {
      this.ahead -= 1;
      this.forward();
    }
  }

  stop() {
    clearTimeout(this.timer);
    this.running = null;
    this.ahead = 0;
    this.host.drawActions();
  }

  toggle(mode) {
    const on = this.running !== mode;
    this.stop();
    if (!on) return;
    this.running = mode;
    this.host.drawActions();
    this.forward();
  }

  /** Another token at this step: a new branch. */
  choose(token) {
    this.stop();
    const { branch, step, row } = this.view;
    this.host.ask({ session: this.shown.session, choose: { branch, step, row, token } }, (reply) => {
      this.go(reply.branch, step);
      this.proceed();
    });
  }

  /** Generate from something else. */
  begin(request, done) {
    this.stop();
    this.host.ask({ start: request }, ({ branch }) => {
      done();
      this.go(branch, 0);
      this.proceed();
    });
  }

  /** Take what the kernel found: true where it was generated from something else. A view that did not ask follows. */
  take(shown) {
    const before = this.shown;
    this.shown = shown;
    const fresh = before?.session !== shown.session;
    if (fresh) {
      this.left.clear();
      const row = Math.min(this.view.row, shown.rows.length - 1);
      Object.assign(this.view, { branch: shown.branch, step: 0, row });
    }
    if (before && !this.host.waiting())
      Object.assign(this.view, { branch: shown.branch, step: this.path(shown.branch).length - 1 });
    return fresh;
  }

  close() {
    clearTimeout(this.timer);
  }
}
