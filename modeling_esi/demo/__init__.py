"""The demo app: a file in, its page, scores of sentences, a report and recordings like it out."""
