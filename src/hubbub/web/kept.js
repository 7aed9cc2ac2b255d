// What the browser keeps for the page. Where it may keep nothing (blocked cookies), things last as long as the page.

/** Gets, sets and removes texts by key in `storage()`, or in memory. */
class Kept {
  #storage = null;
  #memory = new Map();

  constructor(storage) {
    try {
      this.#storage = storage();
    } catch (error) {
      console.info("nothing can be kept beyond this page", error);
    }
  }

  /** The text, or null. */
  get(key) {
    return this.#memory.get(key) ?? this.#storage?.getItem(key) ?? null;
  }

  set(key, text) {
    try {
      if (this.#storage === null) this.#memory.set(key, text);
      else this.#storage.setItem(key, text);
    } catch {
      this.#memory.set(key, text); // it is full
    }
  }

  remove(key) {
    this.#memory.delete(key);
    this.#storage?.removeItem(key);
  }
}

/** For this tab, until it is closed. */
export const tab = new Kept(() => globalThis.sessionStorage);
/** For this browser. */
export const browser = new Kept(() => globalThis.localStorage);
