// Package replica keeps a copy of the database elsewhere, continuously, and brings it back: it is the only
// importer of litestream. The order in which Open and Close do things is what makes it safe; each step says why.
package replica

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/benbjohnson/litestream/s3"
)

// Config says where a replica is.
type Config struct {
	text string // as it may be shown: keys are never part of it
	dir  string // of a file replica

	bucket, prefix string // of one on S3
	query          url.Values
	key, secret    string
	session        string
}

// String is the replica's URL.
func (c *Config) String() string { return c.text }

const forms = "file:///path or s3://bucket/prefix?endpoint=…&region=…&forcePathStyle=true"

// Parse reads a replica's URL. The keys of S3 come from the usual variables, through getenv; without them
// the SDK would go looking for a cloud machine's own, so that is an error.
func Parse(text string, getenv func(string) string) (*Config, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL; it must be %s", text, forms)
	}
	c := &Config{text: text, query: u.Query()}
	if u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("a replica's URL has neither user nor fragment; it must be %s, and keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", forms)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) || filepath.Clean(u.Path) == "/" || len(c.query) > 0 {
			return nil, fmt.Errorf("%q is not the absolute path of a directory, as in file:///var/backups/platform-api", text)
		}
		c.dir = filepath.Clean(u.Path)
		return c, nil
	case "s3":
		c.bucket, c.prefix = u.Host, strings.Trim(u.Path, "/")
		return c, c.checkS3(getenv)
	}
	return nil, fmt.Errorf("%q is neither; it must be %s", text, forms)
}

func (c *Config) checkS3(getenv func(string) string) error {
	if c.bucket == "" || c.prefix == "" {
		return fmt.Errorf("%q names no bucket or no prefix; it must be s3://bucket/prefix", c.text)
	}
	for name, values := range c.query {
		switch value := values[0]; {
		case len(values) > 1:
			return fmt.Errorf("%q gives %s twice", c.text, name)
		case name == "endpoint":
			e, err := url.Parse(value)
			if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
				return fmt.Errorf("the endpoint %q is not an origin such as https://fly.storage.tigris.dev", value)
			}
		case name == "forcePathStyle":
			if _, err := strconv.ParseBool(value); err != nil {
				return fmt.Errorf("forcePathStyle is %q; it must be true or false", value)
			}
		case name != "region":
			return fmt.Errorf("%q has the parameter %s; the parameters are endpoint, region and forcePathStyle", c.text, name)
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if region := getenv(name); region != "" && c.query.Get("region") == "" {
			c.query.Set("region", region)
		}
	}
	if c.query.Get("region") == "" && c.query.Get("endpoint") == "" {
		return fmt.Errorf("%q names neither a region nor an endpoint; a bucket at AWS needs its region, as in s3://bucket/prefix?region=eu-central-1", c.text)
	}
	c.key, c.secret, c.session = getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"), getenv("AWS_SESSION_TOKEN")
	if c.key == "" || c.secret == "" {
		return errors.New("a replica on S3 needs its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	if getenv("AWS_CA_BUNDLE") != "" {
		return errors.New("AWS_CA_BUNDLE is not supported here: give the certificates in SSL_CERT_FILE instead")
	}
	return nil
}

// client returns a client of the replica, which writes without asking anybody.
func (c *Config) client() (litestream.ReplicaClient, error) {
	if c.dir != "" {
		return file.NewReplicaClient(c.dir), nil
	}
	os.Setenv("AWS_EC2_METADATA_DISABLED", "true") // else the SDK asks the network who we are
	made, err := s3.NewReplicaClientFromURL("s3", c.bucket, c.prefix, c.query, nil)
	if err != nil {
		return nil, err
	}
	client := made.(*s3.ReplicaClient)
	client.AccessKeyID, client.SecretAccessKey = c.key, c.secret
	if c.session != "" {
		// It would drop the session token; without keys it takes all three from the environment itself.
		client.AccessKeyID, client.SecretAccessKey = "", ""
	}
	return client, nil
}

// api returns a bare client of the bucket, for the lease.
func (c *Config) api(ctx context.Context) (*awss3.Client, error) {
	region := c.query.Get("region")
	if region == "" {
		region = s3.DefaultRegion
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.key, c.secret, c.session)))
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	return awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		endpoint := c.query.Get("endpoint")
		if endpoint == "" {
			return
		}
		style := c.query.Get("forcePathStyle")
		force, _ := strconv.ParseBool(style)
		o.BaseEndpoint, o.UsePathStyle = aws.String(endpoint), style == "" || force
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // others than AWS know no chunked sums
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}), nil
}

// preflight says whether the replica can be reached, and whether anything is in it.
func (c *Config) preflight(ctx context.Context, client litestream.ReplicaClient) (backup bool, err error) {
	if c.dir != "" {
		info, err := os.Stat(c.dir)
		if err != nil {
			return false, fmt.Errorf("%w; the directory is never made here, so that a mount that is missing is noticed", err)
		}
		if !info.IsDir() {
			return false, fmt.Errorf("%s is not a directory", c.dir)
		}
	}
	if err := client.Init(ctx); err != nil {
		return false, err
	}
	return anything(ctx, client)
}

// anything tells whether the replica has a file at all.
func anything(ctx context.Context, client litestream.ReplicaClient) (bool, error) {
	for level := litestream.SnapshotLevel; level >= 0; level-- {
		files, err := client.LTXFiles(ctx, level, 0, false)
		if err != nil {
			return false, err
		}
		found := files.Next()
		if err := errors.Join(files.Err(), files.Close()); err != nil {
			return false, err
		}
		if found {
			return true, nil
		}
	}
	return false, nil
}
