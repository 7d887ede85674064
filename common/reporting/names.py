"""What models and frameworks are called in print."""

MODEL_NAMES = {"i3d": "I3D", "conv_lstm": "C-LSTM"}
FRAMEWORK_NAMES = {"torch": "PyTorch", "tf": "TensorFlow"}
GAME_NAMES = {"delete": "deletion", "preserve": "preservation"}  # Of `masks.GAMES`.
