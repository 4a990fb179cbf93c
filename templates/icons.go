package templates

import (
	"fmt"
	"html/template"
)

// icons are the shapes on a grid of 16, stroked in the text's colour.
var icons = map[string]string{
	"search":  `<circle cx="7" cy="7" r="4.3"/><path d="m10.3 10.3 3.2 3.2"/>`,
	"flag":    `<path d="M3.5 14V2.5M3.5 3h8l-1.8 3 1.8 3h-8"/>`,
	"tenants": `<path d="M2.5 13.5v-8l5-3v11M7.5 6.5l6 2v5h-11M5 7v.01M5 10v.01M10.5 11v.01"/>`,
	"partner": `<circle cx="5.8" cy="8" r="3.6"/><circle cx="10.2" cy="8" r="3.6"/>`,
	"audit":   `<path d="M8 4.5V8l2.5 1.5"/><path d="M2.6 6A5.8 5.8 0 1 1 2.3 9M2.3 3v3h3"/>`,
	"tokens":  `<circle cx="5.2" cy="10.8" r="2.7"/><path d="m7.2 8.8 6-6M11 5l2 2M9.2 6.8l1.4 1.4"/>`,
	"status":  `<path d="M1.8 8h2.7l1.8-4.5 3 9L11.2 8h3"/>`,
	"gear":    `<circle cx="8" cy="8" r="2.2"/><path d="M8 1.8v2M8 12.2v2M1.8 8h2M12.2 8h2M3.6 3.6 5 5M11 11l1.4 1.4M3.6 12.4 5 11M11 5l1.4-1.4"/>`,
	"menu":    `<path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11"/>`,
	"plus":    `<path d="M8 3v10M3 8h10"/>`,
	"copy":    `<rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/><path d="M10.5 3.8v-.3a1 1 0 0 0-1-1h-6a1 1 0 0 0-1 1v6a1 1 0 0 0 1 1h.3"/>`,
	"more":    `<path d="M3.5 8v.01M8 8v.01M12.5 8v.01"/>`,
	"close":   `<path d="m4 4 8 8M12 4l-8 8"/>`,
	"kill":    `<path d="M8 2v5.5"/><path d="M4.6 4.3a5.2 5.2 0 1 0 6.8 0"/>`,
	"check":   `<path d="m3.5 8.5 3 3 6-7"/>`,
	"minus":   `<path d="M4 8h8"/>`,
	"undo":    `<path d="M6 3.5 2.8 6.7 6 9.9"/><path d="M3 6.7h6.2a3.6 3.6 0 0 1 0 7.2H6.5"/>`,
	"chevron": `<path d="m6 3.5 4.5 4.5L6 12.5"/>`,
	"warn":    `<path d="M8 2.5 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.01"/>`,
	"none":    `<circle cx="8" cy="8" r="5.6"/><path d="m4 12 8-8"/>`,
	"trash":   `<path d="M3 4.5h10M6.5 4V2.8h3V4M4.5 4.5l.6 8.7h5.8l.6-8.7"/>`,
	"edit":    `<path d="m3 13 .6-2.8 7.3-7.3 2.2 2.2-7.3 7.3z"/>`,
	"out":     `<path d="M6.5 2.8h-3v10.4h3M9.5 5l3 3-3 3M12 8H6.2"/>`,
}

// icon is a shape as inline SVG, size pixels wide and high.
func icon(name string, size int) (template.HTML, error) {
	shape, ok := icons[name]
	if !ok {
		return "", fmt.Errorf("no icon %q", name)
	}
	class := ""
	if name == "chevron" {
		class = ` class="chev"`
	}
	return template.HTML(fmt.Sprintf(`<svg%s width="%d" height="%d" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">%s</svg>`,
		class, size, size, shape)), nil
}

// stateIcon is a state's shape: a dashed ring, a disc with a check, a ring with a dot, a pie.
func stateIcon(state string, pct, size int) template.HTML {
	shape := `<circle cx="8" cy="8" r="5.2" fill="none" stroke="currentColor" stroke-width="1.7" stroke-dasharray="2.6 2.2"/>`
	switch state {
	case "on":
		shape = `<circle cx="8" cy="8" r="6.6" fill="currentColor"/><path d="m5 8.3 2.1 2.1 4-4.6" fill="none" stroke="var(--surface)" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/>`
	case "targeted":
		shape = `<circle cx="8" cy="8" r="5.6" fill="none" stroke="currentColor" stroke-width="1.6"/><circle cx="8" cy="8" r="2.3" fill="currentColor"/>`
	case "rollout":
		shape = fmt.Sprintf(`<circle class="ring-bg" cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="3.2"/><circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="3.2" stroke-dasharray="%.2f 31.42" transform="rotate(-90 8 8)"/>`,
			31.42*float64(pct)/100)
	}
	return template.HTML(fmt.Sprintf(`<svg width="%d" height="%d" viewBox="0 0 16 16" aria-hidden="true">%s</svg>`, size, size, shape))
}
