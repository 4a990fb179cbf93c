package handlers_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "make the README's pictures in this directory")

// TestScreenshots makes pictures of the demo registry, when it is asked to.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("asked for with -screenshots DIR (make screenshots)")
	}
	if err := os.MkdirAll(*screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	const draft = `(() => { const r = document.querySelector('#pct'); r.value = 60; r.dispatchEvent(new Event('input', {bubbles: true})) })()`
	for _, shot := range []struct {
		name, path, script string
		look               look
	}{
		{"list-light-1280", "/operator/flags", "", look{size: size{1280, 800}, features: map[string]string{"prefers-color-scheme": "light"}}},
		{"panel-dark-1280", "/operator/flags/thread_summaries", draft, look{size: size{1280, 800}, features: map[string]string{"prefers-color-scheme": "dark"}}},
		{"panel-light-390", "/operator/flags/thread_summaries", draft, look{size: phone, features: map[string]string{"prefers-color-scheme": "light"}}},
	} {
		t.Run(shot.name, func(t *testing.T) {
			_, p := console(t, shot.look)
			p.openLive(shot.path)
			if shot.script != "" {
				js[any](p, shot.script)
				p.wait(`document.querySelector('#save').textContent.includes('gain')`)
			}
			png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(*screenshots, shot.name+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}
