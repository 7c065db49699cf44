// The panel of runs as an anywidget.
export default {
  render({ model, el }) {
    const view = new PanelView(model, el);
    return () => view.close();
  },
};
