// Package tools names what go.mod pins; nothing is compiled here.
package tools
