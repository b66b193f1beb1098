"""The code of the napari guide, typed into the console of a real window."""

from pages import GUIDE, blocks, lay_out_files


def test_the_guides_examples_run(viewer, finish, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out_files()
    names = {"viewer": viewer}
    examples = blocks(GUIDE, "python")
    assert examples
    for number, example in enumerate(examples, start=1):
        for lines in example.split("\n\n"):  # a person waits for the result before going on
            exec(compile(lines, f"{GUIDE.name}, example {number}", "exec"), names)
            if "widget" in names:
                finish(names["widget"])
    assert any("deblurred" in layer.name for layer in viewer.layers)
