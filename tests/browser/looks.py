"""What scripts in the page can tell of its look: nameless controls, faint texts, things that stick out."""

from __future__ import annotations

NAMELESS = """
() => [...document.querySelectorAll("button, a[href], input, textarea, select, summary, [tabindex='0']")]
  .filter((node) => node.checkVisibility())
  .filter((node) => {
    const labels = [...(node.labels ?? [])].map((label) => label.textContent);
    const ids = (node.getAttribute("aria-labelledby") ?? "").split(" ");
    const by = ids.map((id) => document.getElementById(id)?.textContent);
    const names = [node.getAttribute("aria-label"), ...labels, ...by, node.innerText, node.title];
    return !names.some((name) => (name ?? "").trim() !== "");
  })
  .map((node) => node.outerHTML.slice(0, 120))
"""

# WCAG 2.2, 1.4.3: contrast of every text that is seen, over the nearest background that is not transparent.
FAINT = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((channel, at) => channel * a + below[at] * (1 - a)).concat(1);
  const backdrop = (node) => {
    const layers = [];
    for (let at = node; at !== null; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    if (text === "" || !node.checkVisibility() || node.closest(".unseen, :disabled, script")) continue;
    const below = backdrop(node);
    const ink = rgba(getComputedStyle(node).color);
    for (let at = node; at !== null; at = at.parentElement) ink[3] *= Number(getComputedStyle(at).opacity);
    const [a, b] = [light(over(ink, below)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${text.slice(0, 40)} (${node.className})`);
  }
  return faint;
}
"""

# What is wider than the window, or scrolls sideways though it is not meant to (code does).
OUTSIDE = """
() => {
  const shortened = (node) =>
    node !== null && (getComputedStyle(node).textOverflow === "ellipsis" || shortened(node.parentElement));
  const wide = [];
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility({ visibilityProperty: true }) || node.closest("pre, .unseen, svg, .skip")) continue;
    if (shortened(node.parentElement)) continue;
    const { left, right } = node.getBoundingClientRect();
    if (right > innerWidth + 0.5 || left < -0.5) wide.push(`outside: ${node.outerHTML.slice(0, 100)}`);
    if (["auto", "scroll"].includes(getComputedStyle(node).overflowX) && node.scrollWidth > node.clientWidth + 1) {
      wide.push(`scrolls: ${node.outerHTML.slice(0, 100)}`);
    }
  }
  const { scrollWidth, scrollHeight } = document.scrollingElement;
  if (scrollWidth > innerWidth || scrollHeight > innerHeight || scrollX + scrollY !== 0) wide.push("the page scrolls");
  return wide;
}
"""
