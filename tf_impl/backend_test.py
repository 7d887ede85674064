import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_keras_computes_with_tensorflow_whatever_the_users_environment_says():
    done = run("from tf_impl import layers; import keras; print(keras.config.backend())", KERAS_BACKEND="jax")
    assert done.stdout.strip() == "tensorflow", done.stderr


def test_starts_without_chatter_but_lets_other_words_through():
    done = run(
        "from tf_impl import backend; import os\n"
        "with backend._without_chatter():\n"
        "    os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called\\na real warning\\n')\n"
        "import tensorflow as tf; tf.constant(1) + 1"
    )
    assert done.stderr == "a real warning\n"


def test_keras_loaded_with_another_backend_is_refused_in_one_line():
    # A stand-in for Keras on JAX: no second backend need be installed.
    done = run(
        "import sys, types\n"
        "from common.command_line import commands\n"
        "keras = types.ModuleType('keras'); keras.config = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "sys.modules['keras'] = keras\n"
        "def main(_):\n    from tf_impl import i3d\n"
        "commands.run(main)"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: tf_impl needs Keras on TensorFlow: import it before Keras, or set KERAS_BACKEND=tensorflow. "
        "Received: Keras is loaded with the backend 'jax'\n"
    )
