# The same as example_server.py with the Perl module that it is compared with: perl example_server.pl SOCKET [KEY=VALUE...]
use strict;
use warnings;
use FCGI::ProcManager;
use IO::Socket::UNIX;
use Time::HiRes qw(sleep time);

my $path = shift @ARGV;
my %parameters = map { split /=/, $_, 2 } @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 1024) or die "$path: $!";
my $manager = FCGI::ProcManager->new(\%parameters);
$manager->pm_manage();
while (my $connection = $listener->accept()) {
    $manager->pm_pre_dispatch();
    my $end = time + <$connection>;
    sleep($end - time) while $end > time;
    print $connection "$$\n";
    close $connection;
    $manager->pm_post_dispatch();
}
