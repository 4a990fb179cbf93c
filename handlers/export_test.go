package handlers

// For the tests from outside, in the browser.
var (
	NodeModules = nodeModules
	Sample      = sample
)
