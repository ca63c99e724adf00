// What a page needs a script for: theme, search, copy buttons, the place in the page's contents.
// Everything else (menus, quizzes, solutions) is HTML and CSS.

const words = document.body.dataset;

// --- theme: the system's, unless the reader chose the other one -------------------------------
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.querySelector(".theme-button");
const currentTheme = () =>
  document.documentElement.dataset.theme || (darkSystem.matches ? "dark" : "light");
const showTheme = () => themeButton.setAttribute("aria-pressed", currentTheme() === "dark");
const remember = (theme) => {
  try {
    if (theme) localStorage.setItem("theme", theme);
    else localStorage.removeItem("theme");
  } catch { /* storage is switched off: the choice lasts for this page */ }
};
themeButton.addEventListener("click", () => {
  const theme = currentTheme() === "dark" ? "light" : "dark";
  const asSystem = theme === (darkSystem.matches ? "dark" : "light");
  if (asSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  remember(asSystem ? null : theme);
  showTheme();
});
darkSystem.addEventListener("change", showTheme);
showTheme();

// --- search: Pagefind's index, fetched when the dialog is first opened ------------------------
const dialog = document.querySelector("dialog.search");
const input = dialog.querySelector("input");
const status = dialog.querySelector(".search-status");
const list = dialog.querySelector(".search-results");
const fill = (sentence, ...values) => sentence.replace(/\{\}/g, () => values.shift());
let engine;

function openSearch() {
  engine ??= import(new URL(dialog.dataset.index, location.href)).catch(() => null);
  if (!dialog.open) dialog.showModal();
  input.focus();
  input.select();
}

// Pagefind matches beginnings of words, so a Korean word is looked up without its particle or verb
// ending: 스레드를 also finds 스레드가. One syllable is left only where that is a term.
const endings = new RegExp(`^([락큐풀힙]|[!-~]+|[가-힣]{2,}?)(들)?(으로써|으로서|에서는|에서|에게|까지|부터|마다|처럼|보다`
  + `|이란|이나|으로|[은는이가을를의와과에도만로란])?(입니다|합니다|하는|하기|하다|했다)?$`);
const stem = (word) => word.match(endings)?.[1] ?? word;
const korean = document.documentElement.lang === "ko";
const asIndexed = (query) => (korean ? query.split(/\s+/).map(stem).join(" ") : query);

async function search() {
  const query = input.value.trim();
  const pagefind = await engine;
  if (!pagefind) { status.textContent = dialog.dataset.failed; return; }
  if (!query) { status.textContent = ""; list.replaceChildren(); return; }
  const found = await pagefind.debouncedSearch(asIndexed(query), {}, 150);
  if (!found) return; // a later key press took over
  const pages = await Promise.all(found.results.slice(0, 8).map((result) => result.data()));
  if (query !== input.value.trim()) return;
  status.textContent = found.results.length
    ? fill(dialog.dataset.some, query, found.results.length)
    : fill(dialog.dataset.none, query);
  list.replaceChildren(...pages.map(searchResult));
}

function searchResult(page) {
  const item = document.createElement("li");
  const places = page.sub_results.filter((place) => place.url.includes("#")).slice(0, 3);
  item.append(searchLink(page.url, page.meta.title, places.length ? "" : page.excerpt));
  if (places.length) {
    const inner = document.createElement("ul");
    for (const place of places) {
      const row = document.createElement("li");
      row.append(searchLink(place.url, place.title, place.excerpt));
      inner.append(row);
    }
    item.append(inner);
  }
  return item;
}

function searchLink(url, title, excerpt) {
  const link = document.createElement("a");
  link.href = url;
  const name = document.createElement("strong");
  name.textContent = title;
  link.append(name);
  if (excerpt) {
    const text = document.createElement("span");
    text.innerHTML = excerpt; // Pagefind escapes the page's text and adds <mark>
    link.append(text);
  }
  link.addEventListener("click", () => dialog.close());
  return link;
}

for (const button of document.querySelectorAll("[data-opens-search]"))
  button.addEventListener("click", openSearch);
input.addEventListener("input", search);
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  const links = [...list.querySelectorAll("a")];
  const place = links.indexOf(document.activeElement);
  if (event.key === "Escape") { // would only empty the box
    event.preventDefault();
    dialog.close();
  } else if (event.key === "Enter" && event.target === input) {
    event.preventDefault();
    links[0]?.click();
  } else if (event.key === "ArrowDown") {
    event.preventDefault();
    links[Math.min(place + 1, links.length - 1)]?.focus();
  } else if (event.key === "ArrowUp") {
    event.preventDefault();
    (place > 0 ? links[place - 1] : input).focus();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  const wanted = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k";
  if (wanted || (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey)) {
    event.preventDefault();
    openSearch();
  }
});

// --- code: a copy button on what a reader may want to run -------------------------------------
for (const code of document.querySelectorAll("article .highlight")) {
  if (code.closest(".cell_output") || !navigator.clipboard) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy-button";
  button.textContent = words.copy;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.querySelector("pre").textContent.trimEnd());
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = words.copy; }, 1500);
  });
  code.append(button);
}

// --- what scrolls inside itself can be reached and scrolled with the keyboard -----------------
const scrollers = document.querySelectorAll(
  "article pre, article .table-scroll, article .cell_output .output");
const nameOf = (box) => {
  if (box.querySelector("math")) return words.formula;
  if (box.querySelector("table")) return words.table;
  return box.closest(".cell_output") ? words.output : words.code;
};
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth + 1) {
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", nameOf(target));
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) target.removeAttribute(name);
    }
  }
});
for (const box of scrollers) watcher.observe(box);

// --- the page's contents: mark the section that is being read ---------------------------------
const pageToc = document.querySelector("#page-toc");
const entries = new Map();
for (const link of document.querySelectorAll("#page-toc a")) {
  const heading = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (heading) entries.set(heading, link);
}
let marked;
function markPlace() {
  let here;
  for (const [heading, link] of entries)
    if (heading.getBoundingClientRect().top < innerHeight / 3) here = link;
  if (here === marked) return;
  marked?.removeAttribute("aria-current");
  here?.setAttribute("aria-current", "true");
  marked = here;
  if (here) pageToc.scrollTop = here.offsetTop - pageToc.clientHeight / 2;
}
if (entries.size) {
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; markPlace(); });
  }, { passive: true });
  markPlace();
  pageToc.addEventListener("click", (event) => {
    if (event.target.closest("a") && pageToc.matches(":popover-open")) pageToc.hidePopover();
  });
}
