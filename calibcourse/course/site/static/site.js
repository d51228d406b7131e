// Explorers without a kernel: each slider chooses among pictures that were drawn beforehand.
for (const explorer of document.querySelectorAll(".explorer")) {
  const { values, frames } = JSON.parse(explorer.querySelector("script").textContent);
  const sliders = [...explorer.querySelectorAll("input")];
  const picture = explorer.querySelector(".picture");
  const panels = [...picture.querySelectorAll("img")];

  const show = () => {
    let index = 0;
    sliders.forEach((slider, i) => {
      const shown = values[i][slider.value];
      slider.setAttribute("aria-valuetext", shown);
      slider.nextElementSibling.textContent = shown;
      index = index * values[i].length + Number(slider.value);
    });
    picture.setAttribute("aria-label", frames[index].alt);
    panels.forEach((panel, i) => { panel.src = frames[index].panels[i]; });
  };
  for (const slider of sliders) slider.addEventListener("input", show);
}

// No browser breaks the line within a formula.
for (const formula of document.querySelectorAll("math:not([display=block])")) {
  const block = formula.closest("p, li, td, dd");
  if (block && formula.getBoundingClientRect().width > block.clientWidth) {
    const box = document.createElement("span");
    box.className = "wide";
    box.tabIndex = 0;
    formula.replaceWith(box);
    box.append(formula);
  }
}

// What is wider than the window is scrolled in place, by keyboard too.
for (const box of document.querySelectorAll("pre, .table-wrapper")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
