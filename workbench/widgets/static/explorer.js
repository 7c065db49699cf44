// The charts of an explorer, drawn whenever the kernel has computed new lines.
function render({ model, el }) {
  const area = node("div", { class: "wb-charts" });
  el.append(node("div", { class: "wb-panel" }, area));
  const charts = model.get("charts").map(() => new Chart(area));
  const draw = () => model.get("charts").forEach((data, i) => charts[i].set(data));
  const observer = new ResizeObserver(draw);
  model.on("change:charts", draw);
  observer.observe(area);
  return () => {
    observer.disconnect();
    model.off("change:charts", draw);
  };
}

export default { render };
