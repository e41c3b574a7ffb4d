package dashboards

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// validator checks values against the JSON schemas that schema.sh makes. It knows the
// keywords that those use; another one is a problem, so that none is passed over.
type validator struct{ definitions map[string]any }

// check returns what about v, found at path, the schema does not allow.
func (d validator) check(path string, schema, v any) (problems []string) {
	if allowed, ok := schema.(bool); ok {
		if !allowed {
			problems = append(problems, path+": not allowed")
		}
		return problems
	}
	s := schema.(map[string]any)
	bad := func(format string, args ...any) {
		problems = append(problems, path+": "+fmt.Sprintf(format, args...))
	}
	for keyword, want := range s {
		switch keyword {
		case "$comment", "$schema", "definitions", "description", "default", "properties", "additionalProperties":
		case "$ref":
			problems = append(problems, d.check(path, d.definitions[strings.TrimPrefix(want.(string), "#/definitions/")], v)...)
		case "const":
			if !reflect.DeepEqual(want, v) {
				bad("%v, want %v", v, want)
			}
		case "enum":
			if !slices.ContainsFunc(want.([]any), func(e any) bool { return reflect.DeepEqual(e, v) }) {
				bad("%v is none of %v", v, want)
			}
		case "type":
			if types, many := want.([]any); many && !slices.ContainsFunc(types, func(t any) bool { return kind(v) == t }) || !many && kind(v) != want {
				bad("%v is of type %s, want %v", v, kind(v), want)
			}
		case "anyOf":
			problems = append(problems, d.anyOf(path, want.([]any), v)...)
		case "allOf":
			for _, one := range want.([]any) {
				problems = append(problems, d.check(path, one, v)...)
			}
		case "required":
			for _, name := range want.([]any) {
				if o, ok := v.(map[string]any); ok {
					if _, there := o[name.(string)]; !there {
						bad("%s is missing", name)
					}
				}
			}
		case "items":
			if list, ok := v.([]any); ok {
				for i, e := range list {
					problems = append(problems, d.check(fmt.Sprintf("%s[%d]", path, i), want, e)...)
				}
			}
		default:
			bad("the schema says %s, which is not known here", keyword)
		}
	}
	return append(problems, d.properties(path, s, v)...)
}

func (d validator) properties(path string, s map[string]any, v any) (problems []string) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	known, _ := s["properties"].(map[string]any)
	for name, e := range o {
		if p, ok := known[name]; ok {
			problems = append(problems, d.check(path+"."+name, p, e)...)
		} else if more, ok := s["additionalProperties"]; ok {
			problems = append(problems, d.check(path+"."+name, more, e)...)
		}
	}
	return problems
}

// anyOf returns the problems of the alternative that fits best, by their number; of
// alternatives that name their type the one of v's type.
func (d validator) anyOf(path string, of []any, v any) []string {
	var best []string
	for i, one := range of {
		p := d.check(path, one, v)
		if len(p) == 0 {
			return nil
		}
		if i == 0 || len(p) < len(best) {
			best = p
		}
	}
	return best
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}
