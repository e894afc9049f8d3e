"""The torch runtime: text generation by transformers' models, encoder-decoder and decoder alike."""
