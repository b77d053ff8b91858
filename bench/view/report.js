// Values under the pointer. Without it the page says the same, less handily.
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), out = figure.querySelector(".under"), cursor = figure.querySelector(".cursor");
  const data = JSON.parse(figure.querySelector("script").textContent);
  svg.addEventListener("pointermove", (e) => {
    const box = svg.getBoundingClientRect(), x = (e.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let best = 0;
    data.at.forEach((at, i) => { if (Math.abs(at - x) < Math.abs(data.at[best] - x)) best = i; });
    cursor.setAttribute("x1", data.at[best]);
    cursor.setAttribute("x2", data.at[best]);
    out.textContent = [data.label[best], ...data.names.map((n, i) => n + "  " + data.texts[i][best])].join("\n");
    out.classList.add("on");
    out.style.left = x < 360 ? "auto" : "0";
    out.style.right = x < 360 ? "0" : "auto";
  });
  svg.addEventListener("pointerleave", () => {
    out.classList.remove("on");
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
  });
}
