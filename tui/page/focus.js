// Typing works at once: the terminal takes the keys as soon as it is drawn, and again when its tab comes back.
const terminal = document.getElementById("terminal");
const focus = () => terminal.querySelector("textarea")?.focus();
new MutationObserver(focus).observe(document.body, { attributes: true, attributeFilter: ["class"] });
window.addEventListener("focus", focus);
