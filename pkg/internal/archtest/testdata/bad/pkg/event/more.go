package event

func turn() {
	flagged.on = true // want state
	source = nil
}
