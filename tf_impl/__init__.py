from tf_impl import backend  # noqa: F401  (before any module here imports Keras: it chooses the backend)
