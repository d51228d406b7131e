// What JupyterLab does not do of itself: it shows an image without the alternative text in its
// metadata, and says nothing of a cell's tags. The looks are in style.css.
// This is what a bundler would make of two plugins (a module-federation container), small enough
// to read.
(() => {
  const style = new URL('style.css', document.currentScript.src).href;
  let shared;

  async function from(name) {
    const versions = Object.values(shared[name]);
    return (await versions[0].get())();
  }

  function figures({ IRenderMimeRegistry }) {
    return {
      id: 'calibcourse:figures',
      description: 'Gives figures their alternative text, and lets drawings follow the theme.',
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
            const { alt, drawing } = model.metadata['image/png'] ?? {};
            if (image && typeof alt === 'string') {
              image.alt = alt;
            }
            if (image && typeof drawing === 'boolean') {
              image.classList.add(`calibcourse-${drawing ? 'drawing' : 'photographs'}`);
            }
          };
          return renderer;
        };
        // Of the images JupyterLab knows, PNG keeps its place in the order of preference.
        registry.addFactory({ ...png, mimeTypes: ['image/png'], createRenderer });
      }
    };
  }

  function exercises({ INotebookTracker }) {
    return {
      id: 'calibcourse:exercises',
      description: 'Marks the cells that are tagged as exercises.',
      autoStart: true,
      requires: [INotebookTracker],
      activate: (app, tracker) => {
        const mark = cells => {
          for (const cell of cells) {
            const tags = cell.model.getMetadata('tags');
            cell.toggleClass('calibcourse-exercise', !!tags?.includes?.('exercise'));
          }
        };
        const follow = async (_, { content, context }) => {
          await context.ready;
          mark(content.widgets);
          content.model.cells.changed.connect(() => mark(content.widgets));
        };
        tracker.widgetAdded.connect(follow);
        tracker.forEach(panel => follow(tracker, panel));
      }
    };
  }

  async function extension() {
    const link = document.createElement('link');
    link.rel = 'stylesheet';
    link.href = style;
    document.head.append(link);
    const plugins = [
      figures(await from('@jupyterlab/rendermime')),
      exercises(await from('@jupyterlab/notebook'))
    ];
    return () => ({ __esModule: true, default: plugins });
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
