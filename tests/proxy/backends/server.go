// A backend in Go, for tests: answers each request with what each way of reading that Go programs use takes it for.
// Standard library only; the address stands on the first line of its output.
package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// What one way of reading takes a request for.
type read struct {
	Model  string  `json:"model"`
	Tokens float64 `json:"tokens"`
	User   string  `json:"user"`
}

// A request as programs declare it: encoding/json takes keys without regard to case.
type chat struct {
	Model               string          `json:"model"`
	MaxTokens           float64         `json:"max_tokens"`
	MaxCompletionTokens float64         `json:"max_completion_tokens"`
	MaxOutputTokens     float64         `json:"max_output_tokens"`
	N                   json.RawMessage `json:"n"`
	BestOf              float64         `json:"best_of"`
	Options             struct {
		NumPredict float64 `json:"num_predict"`
	} `json:"options"`
	GenerationConfig struct {
		MaxOutputTokens float64 `json:"maxOutputTokens"`
	} `json:"generationConfig"`
}

func (c chat) read() read {
	answers, _ := strconv.ParseFloat(strings.Trim(string(c.N), `"`), 64)
	tokens := math.Max(math.Max(c.MaxTokens, c.MaxCompletionTokens), math.Max(c.MaxOutputTokens, c.Options.NumPredict))
	tokens = math.Max(tokens, c.GenerationConfig.MaxOutputTokens)
	return read{Model: c.Model, Tokens: tokens * math.Max(1, math.Max(answers, c.BestOf))}
}

// The loosest of them: a map, and what of it is a number.
func loose(fields map[string]any) read {
	number := func(name string) float64 {
		switch value := fields[name].(type) {
		case float64:
			return value
		case string:
			number, _ := strconv.ParseFloat(value, 64)
			return number
		}
		return 0
	}
	model, _ := fields["model"].(string)
	tokens := math.Max(number("max_tokens"), number("max_completion_tokens"))
	return read{Model: model, Tokens: tokens * math.Max(1, math.Max(number("n"), number("best_of")))}
}

func decoded(coding string, body []byte) []byte {
	var reader io.Reader
	var err error
	switch strings.ToLower(coding) {
	case "gzip", "x-gzip":
		reader, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		reader, err = zlib.NewReader(bytes.NewReader(body))
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(reader)
	return plain
}

// A copy of the request whose body can be read again.
func again(r *http.Request, body []byte) *http.Request {
	copied := r.Clone(r.Context())
	copied.Body = io.NopCloser(bytes.NewReader(body))
	return copied
}

func field(value func(string) string) read {
	number := func(name string) float64 {
		number, _ := strconv.ParseFloat(strings.TrimSpace(value(name)), 64)
		return number
	}
	return read{Model: value("model"), Tokens: number("max_tokens") * math.Max(1, number("n"))}
}

// The model that stands in a path, as Gemini, Bedrock and Azure have it.
func inPath(path string) string {
	segments := strings.Split(path, "/")
	for at, segment := range segments {
		if segment == "models" && at+1 < len(segments) && strings.Contains(segments[at+1], ":") {
			return segments[at+1][:strings.LastIndex(segments[at+1], ":")]
		}
		if (segment == "model" || segment == "deployments") && at+2 < len(segments) {
			return segments[at+1]
		}
	}
	return ""
}

func understood(r *http.Request) map[string]read {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	reads := map[string]read{}
	for name, text := range map[string][]byte{"": body, " decoded": decoded(r.Header.Get("Content-Encoding"), body)} {
		if text == nil {
			continue
		}
		var declared chat
		if json.Unmarshal(text, &declared) == nil {
			reads["Unmarshal"+name] = declared.read()
		}
		// Many programs look at no error here, or go on after the first value.
		var streamed chat
		_ = json.NewDecoder(bytes.NewReader(text)).Decode(&streamed)
		reads["Decode"+name] = streamed.read()
		var fields map[string]any
		if json.NewDecoder(bytes.NewReader(text)).Decode(&fields) == nil {
			reads["map"+name] = loose(fields)
		}
		form := again(r, text)
		reads["FormValue"+name] = field(form.FormValue)
		posted := again(r, text)
		reads["PostFormValue"+name] = field(posted.PostFormValue)
		if parts, err := again(r, text).MultipartReader(); err == nil {
			values := url.Values{}
			for {
				part, err := parts.NextPart()
				if err != nil {
					break
				}
				value, _ := io.ReadAll(part)
				if part.FileName() == "" {
					values.Add(part.FormName(), string(value))
				}
			}
			reads["MultipartReader"+name] = field(values.Get)
		}
	}
	reads["path"] = read{Model: inPath(r.URL.Path)}
	reads["escaped path"] = read{Model: inPath(r.URL.EscapedPath())}
	reads["query"] = field(r.URL.Query().Get)
	return reads
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	err = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := understood(r)
		for name, one := range reads {
			one.User = r.Header.Get("X-User-Id")
			reads[name] = one
		}
		w.Header().Set("Content-Type", "application/vnd.reads")
		_ = json.NewEncoder(w).Encode(reads)
	}))
	panic(err)
}
