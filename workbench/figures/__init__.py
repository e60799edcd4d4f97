"""Figures of what an analysis returned: one figure a file, drawn without global state, the same bytes every time.

Every figure is a module with the same four names; `registry.FIGURES` lists them::

    from workbench.figures import registry, style

    figure = registry.load("layer_profile")
    style.save(figure.draw(recording), "reports/x", "layer_profile", data=figure.data(recording))
    print(figure.caption(recording))
"""
