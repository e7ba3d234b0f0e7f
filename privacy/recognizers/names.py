"""Lexicons of personal names and of words that are none; lower case, public knowledge, from no data set.

Assumption: a lexicon only raises recall where a cue is weak; it is never the only defence, and it is uneven across cultures.
"""

from __future__ import annotations

from privacy.recognizers.view import word_set

GIVEN_NAMES = word_set(
    """
    aaron abdul abdullah abhishek abigail abraham adam adele adrian adriana agnes ahmad ahmed aidan aiden aisha ajay akash
    akira alan albert alberto alejandra alejandro alex alexa alexander alexandra alexandre alexis alfred ali alice alicia
    alina alisha alison allen allison alma alyssa amanda amar amber amelia amir amit amy ana anand ananya anastasia andre
    andrea andreas andres andrew angel angela angelica angelina anil anita anitha anjali ankit ann anna anne annette annie
    anthony antonia antonio anu anushka aparna april arjun arlene arnold arthur arun aruna arvind asha ashley ashok ashwin
    audrey aurora austin ava avery ayesha barbara barry beatrice becky ben benjamin bernadette bernard bernice beth
    bethany betty beverly bhavya billy blake bob bobby bonnie boris brad bradley brandi brandon brandy brenda brendan
    brent brett brian brianna bridget britney brittany brooke bruce bryan bryce caitlin caleb calvin cameron camila
    camille candice cara carl carla carlos carmen carol carole caroline carolyn carrie casey cassandra catherine cathy
    cecilia cedric celeste chad chandra charlene charles charlie charlotte chen chelsea cheryl chloe chris christian
    christina christine christopher cindy claire clara clarence claudia clayton clifford clint clinton cody colin colleen
    connie connor conor constance corey courtney craig cristina crystal curtis cynthia daisy dale damian damien dan dana
    daniel daniela danielle danny daphne darius darlene darren darryl dave david dawn dean deanna debbie deborah debra
    deepa deepak deepika deepthi denise dennis derek desiree devin devon diana diane dianne diego dinesh divya dmitri
    dolores dominic dominique don donald donna dora doreen doris dorothy doug douglas duane dustin dwayne dylan earl eddie
    edgar edith edmund eduardo edward edwin eileen elaine eleanor elena eli elias elijah elisa elisabeth elise eliza
    elizabeth ella ellen ellie elsa elsie emil emilia emily emma emmanuel enrique eric erica erik erika erin ernest
    esteban esther ethan eugene eva evan eve evelyn farah fatima felicia felipe felix fernando fiona florence frances
    francesca francis francisco franklin fred freddie frederick gabriel gabriela gabrielle gail ganesh gareth garrett gary
    gavin geetha gemma gene geoffrey george georgia gerald geraldine gerard gilbert gina ginger giovanni gita giulia
    gladys glen glenda glenn gloria gopal gordon govind graham greg gregg gregory greta guillermo gustavo guy gwen hamza
    hannah hans hari harini harish harold harriet harry haruto harvey hassan hazel heather hector heidi helen helena helga
    henrik henry herbert herman hilda hiroshi holly howard hugh hugo hussein ian ibrahim ida igor ileana imran ines ingrid
    irene iris irma isaac isabel isabella isabelle isaiah ismail ivan ivy jackie jackson jacob jacqueline jacques jaime
    jake james jamie jan jane janet janice janine jared jasmin jasmine jason javier jay jaya jayden jean jeanette jeanne
    jeff jeffery jeffrey jen jenna jennie jennifer jenny jeremiah jeremy jerome jerry jesse jessica jessie jesus jill jim
    jimmy jo joan joann joanna joanne joaquin jocelyn jodi jody joe joel johan johanna john johnathan johnny jon jonas
    jonathan jordan jorge jose joseph josephine josh joshua joyce juan juanita judith judy julia julian juliana julie
    juliet julio june jun justin kaitlyn kajal karan karen karim karin karina karl karla karthik kate katelyn katherine
    kathleen kathryn kathy katie katrina kavita kavitha kavya kay kayla keith kelli kelly kelsey ken kendra kenneth kenny
    kerry kevin khalid kim kimberly kiran kirk kirsten kishore komal kris krishna kristen kristin kristina kristine kristy
    kumar kurt kyle lakshmi lana lara larry lars latha laura lauren laurence laurie lavanya lawrence leah lee leela leela
    leila lena leo leon leonard leonardo leroy leslie lester leticia levi lewis liam lila lillian lily linda lindsay
    lindsey lionel lisa liz lloyd logan lois lola lorena lorenzo loretta lori lorraine louis louise lucas lucia lucille
    lucy luigi luis luisa luke luna lydia lynn madeline madhu madison maggie mahesh malcolm malik mandy manish manju manoj
    manuel marc marcel marcia marco marcos marcus margaret margarita maria mariah mariam marian mariana marie marilyn
    mario marion marissa marjorie marlene martha martin martina marvin mary maryam mateo mathew matt matteo matthew
    maureen maurice mauricio maya mayra meena meera megan meghan mei melanie melinda melissa melody mercedes meredith mia
    michael michaela michel michele michelle miguel mike mikhail mildred milton min mindy minh miranda miriam mitchell
    mohamed mohammad mohammed mohan mohit moira molly mona monica monique morgan muhammad murali mustafa myra myrtle nadia
    nancy naomi natalia natalie natasha nathan nathaniel naveen neha neil nelson nicholas nick nicolas nicole nikhil
    nikita nina nisha nitin noah noel noelle nora norma norman olga oliver olivia omar omer orlando oscar otto owen pablo
    paige pallavi pam pamela pankaj paola patricia patrick patty paul paula pauline pavan pavel pedro peggy penny perry
    peter phil philip phillip phoebe phyllis pierre pooja prabhu pradeep prakash pranav prasad prasanna praveen preethi
    preeti prem preston priya priyanka rachel rafael raghu rahul raj raja rajan rajesh rajiv rakesh ralph ram rama ramesh
    ramon ramona ramya randall randy rani ranjith raquel rashid raul ravi raymond rebecca reena regina rekha renee revathi
    rhonda ricardo richard rick ricky riley rita ritu robert roberta roberto robin rochelle rodney rodrigo roger rohan
    rohit roland ron ronald ronda ronnie rosa rosalie rosario rosemary ross roxanne roy ruben ruby rudolf russell ruth
    ryan sabrina sachin sadie saeed sally salma salman samantha samir samuel sandeep sandhya sandra sandy sangeetha sanjay
    sanjeev santhosh santiago santosh sara sarah saravanan saritha sasha satish savannah scott sean sebastian selena selvi
    senthil sergei sergey sergio seth shalini shanna shannon shanthi sharon shashi shaun shawn sheena sheila shelby
    shelley shelly sherri sherry shirley shiva shreya shruti sid siddharth sidney silvia simon simone sneha sofia sonia
    sonja sophia sophie sri sridhar srinivas srinivasan stacey stacy stan stanley stefan stella stephanie stephen steve
    steven stewart stuart subash sudha sudhir suman sumathi sunil sunita suresh surya susan susana sushma suzanne swati
    swathi sylvia tamara tammy tanya tara taylor ted teresa terrance terry thelma theo theodore theresa thomas tiffany tim
    timothy tina toby todd tom tomas tommy toni tony tracey traci tracy travis trevor tricia trisha troy tyler uma usha
    valerie vanessa varun venkat venkatesh vera vernon veronica vicki vickie vicky victor victoria vidya vijay vikas
    vikram vinay vincent vinod viola violet virginia vishal vivek vivian vladimir wade walter wanda wayne wei wendy wesley
    whitney wilfred william willie wilma winifred xavier xiao yan yash yasmin yolanda yuki yusuf yvette yvonne zachary
    zainab zoe sam nate zach zack abby meg deb carly katy wes tess bea mick dev ash gabe luca nico theresa tamika latoya
    """
)

SURNAMES = word_set(
    """
    adams agarwal ahmed aguilar alexander ali allen alvarez anderson andrews armstrong arnold bailey baker barnes bell
    bennett bhat black boyd bradley brooks brown bruce bryant burke burns butler campbell carpenter carroll carter
    castillo castro chan chandra chang chavez chen cheng choi chopra clark cole coleman collins cook cooper cox crawford
    cruz cunningham daniels das davies davis desai diaz dixon duncan dunn edwards elliott ellis evans ferguson fernandez
    fernando fisher fischer fletcher flores ford foster fox franklin freeman garcia gardner gibson gomes gomez gonzales
    gonzalez gordon graham grant gray green greene griffin gupta gutierrez hall hamilton hansen harper harris harrison
    hart harvey hawkins hayes henderson henry hernandez herrera hicks hill ho hoffman holmes howard hudson hughes hunt
    hunter hussain ivanov iyer jackson jacobs james jain jenkins jensen jimenez johnson johnston jones jordan joseph joshi
    kapoor kaur kelley kelly kennedy khan kim king klein knight kumar lane larson lawrence lawson lee lewis li lin liu
    lopez lynch marshall martin martinez mason matthews mccarthy mcdonald medina mehta mendoza menon meyer miller mills
    mishra mitchell mohamed montgomery moore morales moreno morgan morris morrison mukherjee muller murphy murray myers
    naidu nair nelson newman nguyen nichols novak oconnor obrien oliver olson ortega ortiz owens palmer parker patel patil
    patterson payne perez perkins perry peters peterson petrov pham phillips pierce pillai porter powell prasad price
    quinn ramirez ramos rao ray reddy reed reyes reynolds rice richards richardson riley rivera roberts robertson robinson
    rodriguez rogers romero rose ross rossi ruiz russell ryan sanchez sanders santos sato schmidt schneider schultz
    schwartz scott sharma shah shaw silva simmons simpson singh smith snyder spencer stephens stevens stewart stone
    sullivan sun suzuki tanaka taylor thomas thompson torres tran tucker turner varma vasquez verma wagner walker wallace
    walsh wang ward warren watkins watson weaver webb weber wells west wheeler white williams williamson wilson wong wood
    woods wright wu xu yadav yamamoto yang york young yu zhang zhao zhou zimmerman
    """
)

# Given names that are everyday words too: alone they prove nothing.
AMBIGUOUS_NAMES = word_set(
    """
    amber angel april asha austin ava chad chandra charlotte chase crystal dale dan dawn dean don drew earl eve florence
    frank gene ginger glen grace guy hazel holly iris ivy jackie jade jan jay jean jordan june jun ken kim kiran kris lee
    logan london luna mark max maya mei melody mercedes min morgan mona norma orlando paige penny ram raj ray rama ravi
    robin ross ruby sandy savannah sid stan sydney ted theo tony troy uma viola violet virginia wade wei will yan georgia
    madison brandy chelsea dominic don ida
    """
)

# Words that follow "my name is", "I am" or open a turn, and end a name.
STOP_WORDS = word_set(
    """
    a able about above account acct ac actually add address after again ago all already also always am an and another any
    anyone anything are as ask at available away back bad balance bank be because been before being below best better
    between big bill birth but buy by bye call called calling came can cancel cannot card case change changed charge check
    checking city close closed code come coming company complaint confirm confirmed contact correct could credit customer
    date day days dear debit deliver delivered delivery details did different digit digits disappointed do does done dont
    down during each email ending ends error even ever every everything excited expired fine first five for found four
    from full furious get getting give given glad go going gone good got great had happy has hasn't have having he hello
    help helping her here hey hi him his home hope house how however i if im in incorrect info information interested into
    is issue it item its just kind know last late later let like line lived living locked login long looking lost love
    made mail make many maam madam may me mean message might mine missing mobile money month more morning most much must
    my name near need needed never new next nice night no none not nothing now number of off offer ok okay old on once one
    only open or order ordered other our out over own package paid password pay paying payment people phone pin place
    please pls possible problem product provide put question quite ready really reason received refund regarding report
    request return right safe said same savings say saying see send sent service several she should show since sir six so
    some someone something soon sorry ssn still street such sure tell ten than thank thanks that thats the their them then
    there these they thing things think this those three ticket till time tired to today told tomorrow too total
    transaction transfer trouble try trying two unable under understand until up update upset upto us use used user
    username using very via visa wait waiting want wanted was way we week well went were what whats when where which while
    who why will wish with without wont work working worried would writing wrong yeah year yes yesterday yet you your
    yours social security credit/debit regards cheers sincerely best welcome hotmail gmail com www http https wondering
    checking hoping having curious confused using spelled registered listed linked associated under attached mentioned
    required blank hidden wrongly correctly misspelled pronounced not spelt support team agent assistant bot admin manager
    representative staff monday tuesday wednesday thursday friday saturday sunday january february hai haii hii hlo helo
    ya yup yep nope superb okey awesome perfect lol okie cool mr mrs ms miss mx dr prof professor doctor march june july
    august september october november december street avenue road lane drive afternoon evening booking confirmation
    """
)

# Words of talk that dictionaries leave out: contractions without their sign, chat spellings, products, offices.
TALK_WORDS = word_set(
    """
    else whether mrng evng whatsoever iban apo fpo dpo psc ceo cto cfo st rd ave apt blvd ste dept via vs ex aka gonna c'mon
    don't can't won't isn't didn't doesn't aren't i'm i've i'll i'd it's that's he's she's we're they're you're let's aint
    alot and/or anymore anytime app apps arent asap atm atms autopay aye bonjour bro btw bye cant chatbot checkin checkout
    couldnt couldve cus cuz cvv dear didn didnt doesn doesnt dont dude emails etc eta expiry eta fav faq fb fax fine fwd fyi
    gonna goodbye goodday gotta greetings guys hadnt hasnt havent hehe hence hereby heya hmm hmmm ids idk iphone isn isnt
    isp itll ive kinda kindly kyc lemme lets logon logout lmk lots mins morn mornin msg msgs mustnt nah nope nothin oh ohh
    ohk okk okie okey onboard online otp outta oops pdf pin pins plz plzz pls ppl promo qr ref refundable regards rn
    reschedule sec secs shan shes shouldnt sim sms smth someones somethings sorta sry ssn sure takeoff tbh thanku thankyou
    thanx thats theres theyre thnx thnk thnks thx til tho thru thur thurs tnx tomo tonite tues tv txn txt uhh uhm umm
    unblock unlock upi ur url usd username wanna wasn wasnt weren werent whats wheres whos wifi wil wont wouldnt wow wrt ya
    yah yall yea yeah yep yeh yes youd youll youre youve yup airbnb aadhaar alright anyways basically boarding citi
    cofirmation confrim confirmaton custmer detials dob emailid enroll enrolled gmail hotmail outlook yahoo icloud inbox
    info infos kms kgs lbs ltd inc llc min mobile mob nd paypal postcode prepaid postpaid reissue resend reset savings sim
    signup signin transfered recieved recieve reciept adress acount accout passwrod pasword tommorow tommorrow untill wich
    teh thier definately plese pleae pleas helo hii hiii hai hey hello hlo haii tq ty tysm welcm wlcm np ok okay k kk lol
    omg pm am cc cs csr hr hq id ip it itd im id ill hes shell fri sat sun mon tue wed thu jan feb mar apr jun jul aug sep
    sept oct nov dec myself yourself yourselves himself herself itself oneself ourselves themselves per onto upon amid among
    amongst toward towards beneath beside besides despite except inside outside unlike within throughout underneath versus
    although because since unless until whenever wherever whichever whoever whose whom than though nor neither either
    passcode passcodes topup topups mastercard crypto interbank contactless withdrawl tranfer num gt
    """
)

# Nationalities, religions and peoples, as adjectives and nouns in the singular; their plurals add an s.
NATIONALITIES = word_set(
    """
    afghan african albanian algerian american angolan arab arabian arabic argentine argentinian armenian asian australian
    austrian azerbaijani bangladeshi basque belarusian belgian bolivian bosnian brazilian british bulgarian burmese
    cambodian cameroonian canadian catalan caucasian chechen chilean chinese colombian congolese croat croatian cuban
    cypriot czech dane danish dutch ecuadorian egyptian emirati english eritrean estonian ethiopian european fijian filipino
    finn finnish flemish french frenchman gambian georgian german ghanaian greek guatemalan haitian hispanic honduran
    hungarian icelander icelandic indian indonesian iranian iraqi irish irishman israeli italian jamaican japanese jordanian
    kazakh kenyan korean kosovar kurd kurdish kuwaiti kyrgyz laotian latino latina latvian lebanese liberian libyan
    lithuanian macedonian malagasy malaysian maltese maori mexican moldovan mongolian montenegrin moroccan mozambican
    namibian nepalese nepali nicaraguan nigerian norwegian omani pakistani palestinian panamanian paraguayan persian
    peruvian pole polish portuguese qatari romani romanian russian rwandan salvadoran saudi scandinavian scot scottish
    senegalese serb serbian singaporean slovak slovakian slovene slovenian somali spaniard spanish sudanese swede swedish
    swiss syrian taiwanese tajik tanzanian thai tibetan tunisian turk turkish turkmen ugandan ukrainian uruguayan uzbek
    venezuelan vietnamese welsh yemeni zambian zimbabwean anglican
    andorran antiguan bahamian bahraini barbadian belizean beninese bhutanese botswanan bruneian burkinabe burundian chadian
    comoran djiboutian dominican equatoguinean gabonese greenlandic grenadian guinean guyanese hongkonger ivorian kiribati
    kittitian lesothan liechtensteiner luxembourger luxembourgish malawian maldivian malian marshallese mauritanian
    mauritian micronesian monegasque monacan nauruan nigerien palauan papuan sahrawi samoan sammarinese sinhalese
    surinamese swazi timorese togolese tongan trinidadian tunisian tuvaluan vanuatuan zairean englishman englishwoman
    scotsman welshman dutchman briton argentine aussie brit afrikaner berber bengali punjabi gujarati tamil telugu
    malayali marathi sindhi pashtun uyghur zulu xhosa yoruba igbo hausa sikh shinto taoist zoroastrian bahai rastafarian
    pentecostal adventist unitarian coptic druze alawite hasidic amish mennonite ashkenazi sephardic baptist
    anglican buddhist catholic christian evangelical hindu
    jain jew jewish lutheran methodist mormon muslim orthodox presbyterian protestant quaker shia sikh sunni
    """
)

# Countries in one word, states of the USA and large cities: never everyday English, whatever a dictionary lists.
PLACE_NAMES = word_set(
    """
    afghanistan albania algeria andorra angola argentina armenia australia austria azerbaijan bahamas bahrain bangladesh
    barbados belarus belgium belize benin bhutan bolivia bosnia botswana brazil brunei bulgaria burundi cambodia cameroon
    canada chile china colombia congo croatia cuba cyprus czechia denmark djibouti ecuador egypt england eritrea estonia
    ethiopia europe fiji finland france gabon gambia germany ghana greece greenland grenada guatemala guinea guyana haiti
    honduras hungary iceland india indonesia iran iraq ireland israel italy jamaica japan jordan kazakhstan kenya kosovo
    kuwait kyrgyzstan laos latvia lebanon lesotho liberia libya liechtenstein lithuania luxembourg macedonia madagascar
    malawi malaysia maldives mali malta mauritania mauritius mexico moldova monaco mongolia montenegro morocco mozambique
    myanmar namibia nepal netherlands nicaragua niger nigeria norway oman pakistan palestine panama paraguay peru
    philippines poland portugal qatar romania russia rwanda samoa scotland senegal serbia singapore slovakia slovenia
    somalia spain sudan suriname swaziland sweden switzerland syria taiwan tajikistan tanzania thailand togo tunisia
    turkmenistan uganda ukraine uruguay usa uk uae uzbekistan vatican venezuela vietnam wales yemen zambia zimbabwe alabama
    alaska arizona arkansas california colorado connecticut delaware florida georgia hawaii idaho illinois indiana iowa
    kansas kentucky louisiana maine maryland massachusetts michigan minnesota mississippi missouri montana nebraska nevada
    ohio oklahoma oregon pennsylvania tennessee texas utah vermont virginia washington wisconsin wyoming amsterdam athens
    atlanta austin baltimore bangalore bangkok barcelona beijing berlin birmingham bombay boston brisbane brooklyn brussels
    budapest cairo calgary calcutta charlotte chennai chicago cincinnati cleveland cologne copenhagen coimbatore dallas
    delhi denver detroit dubai dublin edinburgh frankfurt geneva glasgow guangzhou hamburg hanoi helsinki houston hyderabad
    istanbul jacksonville jakarta jersey johannesburg karachi kiev kolkata kyiv kyoto lagos lahore leeds lima lisbon
    liverpool london madrid madurai manchester manhattan manila melbourne memphis miami milan milwaukee minneapolis montreal
    moscow mumbai munich nairobi naples nashville oakland orlando osaka oslo ottawa paris perth philadelphia phoenix
    pittsburgh portland prague pune quebec queens riga rome rotterdam sacramento salem seattle seoul shanghai shenzhen sofia
    springfield stockholm stuttgart sydney tampa tehran tokyo toronto trichy tucson turin valencia vancouver venice vienna
    warsaw zagreb zurich
    anguilla antigua aruba bermuda burkina cameroun comoros curacao dominica eswatini guadeloupe guam guernsey kiribati
    macao macau martinique mayotte micronesia montserrat nauru niue palau polynesia seychelles svalbard
    tuvalu vanuatu zaire bavaria catalonia crimea england flanders galicia lombardy normandy ontario provence quebec saxony
    scotland siberia sicily siena tuscany tyrol ulster yorkshire kent sussex essex surrey devon alberta manitoba
    saskatchewan tasmania queensland gujarat kerala punjab karnataka maharashtra rajasthan telangana assam bihar
    addis adelaide agra ahmedabad aleppo algiers almaty amman ankara antwerp auckland baghdad baku bali basel beirut belfast
    belgrade bern bilbao bogota bologna bonn bordeaux bratislava bremen brighton bristol bucharest canberra caracas cardiff
    casablanca chandigarh colombo cordoba coventry dakar damascus dhaka doha dortmund dresden durban dusseldorf essen
    florence fukuoka gdansk genoa ghent gothenburg granada graz guadalajara guayaquil haifa hague hangzhou harare havana
    hiroshima hobart indianapolis innsbruck islamabad izmir jaipur jeddah jerusalem kabul kampala kanpur katowice kazan
    khartoum kinshasa kobe kochi krakow lausanne leicester leipzig lille linz ljubljana lodz luanda lucknow lusaka
    luxembourg luzern lyon malaga malmo managua mannheim maputo marseille mecca medellin milano monterrey montevideo
    mombasa monrovia nagoya nagpur nanjing newcastle nottingham novosibirsk nuremberg odessa ostrava oxford palermo
    palma plymouth porto poznan pretoria quito rabat rawalpindi reykjavik riyadh sapporo sarajevo seville sheffield
    skopje southampton strasbourg surat taipei tallinn tashkent tbilisi thessaloniki tianjin tirana trieste tripoli tunis
    utrecht valparaiso varanasi verona vilnius vladivostok winnipeg wroclaw wuhan wuppertal xian yangon yerevan yokohama
    """
)
