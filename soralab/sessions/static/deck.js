// Sets the formulas, lays out the pages and starts reveal.js.
for (const formula of document.querySelectorAll(".math")) {
  katex.render(formula.textContent, formula, {
    displayMode: formula.classList.contains("display"), throwOnError: false, strict: false,
  });
}

// A page that is too full becomes smaller; what still does not fit can be scrolled. A formula that is too wide becomes
// smaller too. One picture that is not wide stands beside its text instead of below it.
function fit(page) {
  page.style.fontSize = "";
  page.classList.remove("tall", "beside");
  const pictures = page.querySelectorAll(".picture img");
  const text = [...page.children].some((cell) => cell.matches(".cell:not(.seen)"));
  if (pictures.length === 1 && text && pictures[0].naturalWidth < 1.6 * pictures[0].naturalHeight) {
    page.classList.add("beside");
  }
  for (const formula of page.querySelectorAll(".math.display")) {
    formula.style.fontSize = "";
    if (formula.scrollWidth > formula.clientWidth) {
      formula.style.fontSize = Math.floor(98 * formula.clientWidth / formula.scrollWidth) + "%";
    }
  }
  const room = page.clientHeight - parseFloat(getComputedStyle(page).paddingBottom);
  const full = () => [...page.children].some((cell) => cell.offsetTop + cell.offsetHeight > room + 1);
  for (let size = 97; full() && size > 55; size -= 3) page.style.fontSize = size + "%";
  page.classList.toggle("tall", full());
}

const fitCurrent = () => Reveal.getCurrentSlide()?.querySelectorAll(".page").forEach(fit);
const fitAll = () => document.querySelectorAll(".page").forEach(fit);

document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", fitCurrent));
document.querySelectorAll(".picture img").forEach((picture) => picture.addEventListener("load", fitCurrent));
document.fonts.ready.then(fitCurrent);
Reveal.on("ready", fitCurrent);
Reveal.on("slidechanged", fitCurrent);
Reveal.on("pdf-ready", fitAll);
Reveal.initialize({
  width: 1280, height: 720, margin: 0.02, center: false, hash: true, slideNumber: "c/t", scrollActivationWidth: null,
  transition: "none", backgroundTransition: "none", pdfMaxPagesPerSlide: 1, plugins: [RevealNotes],
});
