// When a learner who types has paused.

/**
 * @param {() => void} act called once the learner has paused
 * @param {number} pause milliseconds after the last key
 */
export function afterTyping(act, pause = 400) {
  let timer = null;
  const stop = () => {
    clearTimeout(timer);
    timer = null;
  };
  return {
    /** Call after each key. */
    restart() {
      stop();
      timer = setTimeout(() => {
        timer = null;
        act();
      }, pause);
    },
    stop,
    waiting: () => timer !== null,
  };
}
