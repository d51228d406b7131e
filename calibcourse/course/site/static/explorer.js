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

// What is wider than the window is scrolled in place, by keyboard too.
for (const box of document.querySelectorAll("pre, .table-wrapper")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
