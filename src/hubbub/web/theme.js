// Light or dark: as the system has it, until somebody chooses.

import { byId, icon } from "./elements.js";
import { browser } from "./kept.js";

const KEY = "hubbub.theme";

/** Follow the choice, and let the buttons change it. */
export function useTheme(...buttons) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    const chosen = browser.get(KEY);
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
    const dark = (chosen ?? (system.matches ? "dark" : "light")) === "dark";
    for (const id of buttons) {
      const button = byId(id);
      button.replaceChildren(icon(dark ? "sun" : "moon"));
      button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
      button.title = button.getAttribute("aria-label");
    }
  };
  for (const id of buttons) {
    byId(id).addEventListener("click", () => {
      const dark = (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
      browser.set(KEY, dark ? "light" : "dark");
      show();
    });
  }
  system.addEventListener("change", show);
  show();
}
