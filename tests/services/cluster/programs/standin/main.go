// standin answers at addresses that a sandbox must not reach: standin DNS_ADDRESS HTTP_ADDRESS...
// Whoever asks the DNS address for a name hears one address; whoever gets the others hears that they did.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(answer http.ResponseWriter, asked *http.Request) {
		fmt.Fprintf(answer, "stand-in for %s\n", asked.Context().Value(http.LocalAddrContextKey))
	})
	for _, address := range os.Args[1:] {
		go func() { log.Fatal(http.ListenAndServe(address, nil)) }()
	}
	names, err := net.ListenPacket("udp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	query := make([]byte, 512)
	for {
		length, from, err := names.ReadFrom(query)
		if err != nil {
			log.Fatal(err)
		}
		if answer := answered(query[:length]); answer != nil {
			names.WriteTo(answer, from)
		}
	}
}

// answered is the query's header and first question, and one A record (RFC 1035, section 4); nil for what is no query.
func answered(query []byte) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root label, type and class
	if end > len(query) {
		return nil
	}
	answer := append([]byte{}, query[:end]...)
	copy(answer[2:12], []byte{0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0})
	return append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
}
