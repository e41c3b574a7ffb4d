package decode // want doc
