// JupyterLab shows an image without the alternative text in its metadata. This extension puts it there.
// It is what a bundler would make of one plugin (a module-federation container), small enough to read.
(() => {
  let shared;

  async function extension() {
    const versions = Object.values(shared['@jupyterlab/rendermime']);
    const { IRenderMimeRegistry } = (await versions[0].get())();
    return () => ({
      __esModule: true,
      default: {
        id: 'calibcourse:alternative-text',
        description: 'Gives images the alternative text in their metadata.',
        autoStart: true,
        requires: [IRenderMimeRegistry],
        activate: (app, registry) => {
          const png = registry.getFactory('image/png');
          const createRenderer = options => {
            const renderer = png.createRenderer(options);
            const render = renderer.renderModel.bind(renderer);
            renderer.renderModel = async model => {
              await render(model);
              const image = renderer.node.querySelector('img');
              const text = model.metadata['image/png']?.alt;
              if (image && typeof text === 'string') {
                image.alt = text;
              }
            };
            return renderer;
          };
          // Of the images JupyterLab knows, PNG keeps its place in the order of preference.
          registry.addFactory({ ...png, mimeTypes: ['image/png'], createRenderer });
        }
      }
    });
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB.calibcourse = {
    init: scope => {
      shared = scope;
    },
    get: async name => {
      if (name !== './extension') {
        throw new Error(`calibcourse has no module ${name}`);
      }
      return extension();
    }
  };
})();
