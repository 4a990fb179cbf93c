package templates

// Docs is the page that shows an OpenAPI document; NewDocs makes it.
type Docs struct {
	Title    string
	Version  string
	Summary  string
	Intro    []Text
	Schemes  []Scheme
	Groups   []Group
	Objects  []Object
	Problem  []Field // of every problem
	Problems []Problem
}

func (Docs) template() (page, name string) { return "docs", "layout" }

// Text is one paragraph, or one phrase.
type Text []Span

// Span is a run of text: plain, or code, or a link to Href.
type Span struct {
	Text string
	Code bool
	Href string
}

// Scheme is one way to show who is asking.
type Scheme struct {
	ID    string // the anchor
	Title string // as "HTTP bearer" or "Header X-API-Key"
	Text  []Text
}

// Group is the operations of one tag.
type Group struct {
	ID         string // the anchor
	Name       string
	Text       []Text
	Operations []Operation
}

// Operation is one method on one path.
type Operation struct {
	ID         string // the operationId, and the anchor
	Method     string
	Path       string
	Role       string // operator, read, evaluate or none
	Title      string
	Text       []Text
	Parameters []Field
	Body       []Field
	BodyTypes  Text // the media types that are taken
	Responses  []Response
	Request    Code    // as a curl command
	Answer     *Answer // nil where the document has no example
}

// Field is a parameter or a member of a JSON object.
type Field struct {
	Name     string // a member of a member as scope.plans, of an array's items as errors[].field
	In       string // path, query or header; empty for a member
	Required bool
	Type     Text
	Pattern  string // a regular expression, or empty
	Default  string // as JSON, or empty
	Text     []Text
}

// Response is what an operation answers with one status.
type Response struct {
	Status  string
	Reason  string // the status in words
	Text    []Text
	Headers []Header
	Body    Text // its type, or the problem's
}

// Header is a header of a response.
type Header struct {
	Name string
	Text Text
}

// Answer is an example of a response.
type Answer struct {
	Status  string
	Reason  string
	Headers []Header // with an example value as the text
	Body    Code     // empty without a body
}

// Object is a JSON object that several responses have.
type Object struct {
	ID     string // the anchor
	Name   string
	Text   []Text
	Fields []Field
}

// Problem is one type of problem.
type Problem struct {
	ID      string // the anchor
	Name    string // the last part of its type
	Status  string
	Reason  string
	Text    []Text
	Headers []Header
	Body    Code // an example
}

// Code is source text in parts that are coloured each in its own way.
type Code []Token

// Token is a part of Code. Kind is "key", "string", "number", "literal" or empty.
type Token struct {
	Kind string
	Text string
}
